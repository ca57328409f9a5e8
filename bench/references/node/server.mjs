// Reference: Node's `http` and the package `ws`.
//
// node server.mjs [CERTIFICATE KEY]

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { WebSocketServer } from "ws";

const members = new Set();
const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false });

const rooms = {
  "/v1/ws/echo": (socket) => {
    socket.on("message", (data) => socket.send(data, { binary: false }));
  },
  "/v1/ws/room": (socket) => {
    members.add(socket);
    socket.on("close", () => members.delete(socket));
    socket.on("message", (data) => {
      for (const member of members) {
        member.send(data, { binary: false });
      }
    });
  },
};

function answer(response, status, data) {
  const timestamp = new Date().toISOString().replace("Z", "000Z");
  const meta = { timestamp, request_id: randomUUID() };
  const body = JSON.stringify({ success: true, data, meta });
  response.writeHead(status, { "content-type": "application/json", "content-length": body.length });
  response.end(body);
}

function serve(request, response) {
  if (request.method === "GET" && request.url === "/v1/ping") {
    answer(response, 200, { pong: true });
  } else if (request.method === "POST" && request.url === "/v1/note") {
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => {
      const note = JSON.parse(Buffer.concat(parts).toString());
      answer(response, 201, { title: note.title, length: note.text.length });
    });
  } else {
    response.writeHead(404).end();
  }
}

const [certificate, key] = process.argv.slice(2);
const server = certificate
  ? https.createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, serve)
  : http.createServer(serve);
server.keepAliveTimeout = 600_000;
server.on("upgrade", (request, socket, head) => {
  const join = rooms[request.url];
  if (join === undefined) {
    socket.destroy();
    return;
  }
  sockets.handleUpgrade(request, socket, head, (opened) => {
    opened.on("error", () => opened.terminate());
    join(opened);
  });
});
server.listen(0, "127.0.0.1", () => {
  process.stderr.write(`listening on 127.0.0.1:${server.address().port}\n`);
});
