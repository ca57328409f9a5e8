// Somebody at a page: an account, the events of the chat socket, and the call they are in.
// What has to outlive a reload is in sessionStorage.

import { Call } from "./call.js";

export const PROTOCOL = "secureconnect.v1";
const CAMERA = { audio: true, video: { width: 320, height: 240, frameRate: 10 } };

export class Client {
  constructor(server, options) {
    this.server = server;
    this.options = options;
    this.events = []; // of the chat socket, the oldest first
    this.call = null;
    Object.assign(this, JSON.parse(sessionStorage.getItem("account") ?? "{}")); // userId, token
  }

  // The data of an answer; what is refused is thrown as { status, code, message, details }.
  async ask(method, path, body) {
    const headers = { "Content-Type": "application/json" };
    if (this.token) headers.Authorization = `Bearer ${this.token}`;
    const answer = await fetch(this.server + path, { method, headers, body: body && JSON.stringify(body) });
    const { data, error } = await answer.json();
    if (!answer.ok) throw Object.assign(new Error(error.message), error, { status: answer.status });
    return data;
  }

  async put(path, content) {
    const headers = { Authorization: `Bearer ${this.token}` };
    const answer = await fetch(this.server + path, { method: "PUT", headers, body: content });
    if (!answer.ok) throw new Error(await answer.text());
  }

  // The size of its picture, [width, height], once a recording has played for a while.
  async play(callId, recordingId) {
    const told = await this.ask("GET", `/v1/calls/${callId}/recordings/${recordingId}/download-url`);
    const file = await fetch(new URL(told.download_url, this.server));
    const video = Object.assign(document.createElement("video"), { muted: true });
    video.src = URL.createObjectURL(await file.blob());
    await video.play();
    await new Promise((resolve, reject) => {
      video.ontimeupdate = () => video.currentTime > 0.5 && resolve();
      video.onended = resolve;
      video.onerror = () => reject(new Error(video.error.message));
    });
    return [video.videoWidth, video.videoHeight];
  }

  // The same as `ask`, what is refused as a value.
  async refusal(method, path, body) {
    try {
      await this.ask(method, path, body);
      return null;
    } catch (refused) {
      return [refused.status, refused.code, refused.message];
    }
  }

  async register(username, password) {
    const account = { username, password, email: `${username}@example.org` };
    const { user, access_token } = await this.ask("POST", "/v1/auth/register", account);
    Object.assign(this, { userId: user.user_id, token: access_token });
    sessionStorage.setItem("account", JSON.stringify({ userId: this.userId, token: this.token }));
    await this.listen();
    return this.userId;
  }

  async converse(...others) {
    const kind = others.length > 1 ? { type: "group", title: "A group" } : { type: "direct" };
    const made = await this.ask("POST", "/v1/conversations", { ...kind, participant_ids: others });
    return made.conversation_id;
  }

  // Resolves when the chat socket is open.
  listen() {
    const address = new URL("/v1/ws/chat", this.server.replace("http", "ws"));
    const socket = new WebSocket(address, [PROTOCOL, `bearer.${this.token}`]);
    return new Promise((resolve, reject) => {
      socket.onclose = reject;
      socket.onmessage = ({ data }) => {
        this.events.push(JSON.parse(data));
        resolve();
      };
    });
  }

  // The latest event of this type.
  heard(type) {
    return this.events.findLast((event) => event.type === type) ?? null;
  }

  async dial(conversation, callees) {
    const asked = { conversation_id: conversation, call_type: "video", callee_ids: callees };
    return this.enter(await this.ask("POST", "/v1/calls/initiate", asked));
  }

  async answer(callId) {
    return this.enter(await this.ask("POST", `/v1/calls/${callId}/join`));
  }

  // The page was loaded anew during a call.
  async comeBack() {
    await this.listen();
    const { callId } = JSON.parse(sessionStorage.getItem("call"));
    return this.answer(callId);
  }

  async enter(joined) {
    const mine = await navigator.mediaDevices.getUserMedia(CAMERA);
    this.call = new Call(this, joined, mine);
    await this.call.attach();
    return joined.call_id;
  }
}
