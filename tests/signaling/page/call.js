// One device in one call: its signaling socket, and a link to each other device.
//
// Of two devices the one that is told of the other's coming (`join`, `peer_resumed`) makes the first offer, and
// asks for new ways after a loss; the other waits for it. So their offers cross only when both change
// something at once.

import { PROTOCOL } from "./client.js";
import { Link } from "./link.js";
import { Recorder } from "./recorder.js";

const FIRST_WAIT_MS = 100;
const LONGEST_WAIT_MS = 2_000;

export class Call {
  constructor(client, joined, camera) {
    this.client = client;
    this.callId = joined.call_id;
    this.url = new URL(joined.signaling_url, client.server.replace("http", "ws"));
    this.connecting = { iceServers: joined.ice_servers, ...client.options };
    this.camera = camera;
    this.screen = null;
    this.links = new Map(); // by peer_id
    this.instanceId = crypto.randomUUID();
    this.peerId = null;
    this.epoch = 0;
    this.resumes = 0;
    this.frames = []; // every one that came, the oldest first
    this.isOver = false;
    const kept = JSON.parse(sessionStorage.getItem("call") ?? "{}");
    this.resumeToken = kept.callId === this.callId ? kept.resumeToken : null;
  }

  // Resolves when the server knows the device; from then on it comes back by itself.
  attach() {
    return new Promise((resolve) => {
      this.attached = resolve;
      this.connect(FIRST_WAIT_MS);
    });
  }

  connect(waitMs) {
    this.socket = new WebSocket(this.url, [PROTOCOL, `bearer.${this.client.token}`]);
    this.socket.onopen = () => {
      waitMs = FIRST_WAIT_MS;
      const comes = this.resumeToken
        ? { type: "resume", resume_token: this.resumeToken }
        : { type: "join" };
      this.socket.send(JSON.stringify({ ...comes, instance_id: this.instanceId }));
    };
    this.socket.onmessage = ({ data }) => this.hear(JSON.parse(data));
    this.socket.onclose = () => {
      if (this.isOver) return;
      const next = Math.min(2 * waitMs, LONGEST_WAIT_MS);
      setTimeout(() => this.connect(next), waitMs * (0.5 + Math.random() / 2));
    };
  }

  // What is said while there is no connection is lost; links say again what still matters.
  send(frame) {
    if (this.socket.readyState === WebSocket.OPEN && this.peerId) {
      this.socket.send(JSON.stringify({ ...frame, epoch: this.epoch }));
    }
  }

  hear(frame) {
    this.frames.push(frame);
    const hasNewEpoch = frame.epoch > this.epoch;
    if (hasNewEpoch) this.epoch = frame.epoch;
    switch (frame.type) {
      case "peers":
      case "resumed":
        this.greet(frame);
        break;
      case "join":
        this.link(frame.peer).begin();
        this.tellScreen();
        break;
      case "peer_resumed":
        this.link(frame.peer).comeBack(frame.restart_ice);
        this.tellScreen();
        break;
      case "leave":
        this.unlink(frame.peer_id);
        break;
      case "call_ended":
        this.hangUp();
        break;
      case "error":
        if (frame.code === "INVALID_TOKEN") this.resumeToken = null; // given up: join anew
        break;
      default:
        if (frame.sender_id) this.linkWith(frame).hear(frame);
    }
    if (hasNewEpoch) for (const link of this.links.values()) link.resync();
  }

  greet(frame) {
    const hasBeen = this.peerId === frame.peer_id;
    this.peerId = frame.peer_id;
    this.resumeToken = frame.resume_token;
    sessionStorage.setItem(
      "call",
      JSON.stringify({ callId: this.callId, resumeToken: this.resumeToken }),
    );
    const present = new Set(frame.peers.map((peer) => peer.peer_id));
    for (const peerId of [...this.links.keys()]) if (!hasBeen || !present.has(peerId)) this.unlink(peerId);
    for (const peer of frame.peers) {
      if (peer.peer_id === this.peerId) continue;
      const link = this.link(peer);
      link.resync();
    }
    if (frame.type === "resumed") this.resumes += 1;
    this.tellMuted();
    this.tellScreen();
    this.attached();
  }

  // A page that was loaded anew is another end: nothing of the old connection is of use with it.
  link(peer) {
    const known = this.links.get(peer.peer_id);
    if (known && (known.peer.instance_id ?? peer.instance_id) === peer.instance_id) {
      known.peer = peer;
      return known;
    }
    known?.close();
    const link = new Link(this, peer);
    this.links.set(peer.peer_id, link);
    return link;
  }

  // An offer may be here before the `join` of who has sent it.
  linkWith({ sender_id, user_id }) {
    return this.links.get(sender_id) ?? this.link({ peer_id: sender_id, user_id, audio: true, video: true });
  }

  unlink(peerId) {
    this.links.get(peerId)?.close();
    this.links.delete(peerId);
  }

  // what one does

  mute(kind, muted) {
    for (const track of this.camera.getTracks()) if (track.kind === kind) track.enabled = !muted;
    this.send({ type: `mute_${kind}`, muted });
  }

  tellMuted() {
    for (const { kind, enabled } of this.camera.getTracks()) {
      if (!enabled) this.send({ type: `mute_${kind}`, muted: true });
    }
  }

  async share() {
    this.screen = await navigator.mediaDevices.getDisplayMedia({
      video: { width: 320, height: 240, frameRate: 5 },
    });
    this.tellScreen();
    for (const link of this.links.values()) link.add(this.screen);
    return this.screen.id;
  }

  tellScreen() {
    if (this.screen) this.send({ type: "screen_share_started", stream_id: this.screen.id });
  }

  unshare() {
    for (const track of this.screen.getTracks()) track.stop();
    for (const link of this.links.values()) link.remove(this.screen);
    this.screen = null;
    this.send({ type: "screen_share_stopped" });
  }

  // Ask everybody; they are told `recording_requested`, and when all agree `recording_started`.
  async askToRecord() {
    const asked = await this.client.ask("POST", `/v1/calls/${this.callId}/recording/start`, {});
    return asked.recording_id;
  }

  agree(recordingId) {
    const agreed = { recording_id: recordingId, consent: true };
    return this.client.ask("POST", `/v1/calls/${this.callId}/recording/consent`, agreed);
  }

  // Everybody has agreed: send so many parts of so many milliseconds.
  async record(recordingId, count, eachMs) {
    const path = `/v1/calls/${this.callId}/recordings/${recordingId}`;
    let number = 0;
    for await (const part of new Recorder(this).parts(count, eachMs)) {
      const content = await part.arrayBuffer();
      number += 1;
      await this.client.put(`${path}/parts/${number}?sha256=${await sha256(content)}`, content);
    }
    await this.client.ask("POST", `${path}/complete`, { parts: number });
  }

  // The server closes the socket when it has heard.
  leave() {
    this.send({ type: "leave" });
    this.hangUp();
  }

  hangUp() {
    this.isOver = true;
    sessionStorage.removeItem("call");
    for (const peerId of [...this.links.keys()]) this.unlink(peerId);
    for (const stream of [this.camera, this.screen]) stream?.getTracks().forEach((track) => track.stop());
  }

  // what one sees

  // Video frames decoded so far, by user_id and then by what it shows: { ann: { camera: 7, screen: 2 } }.
  async decoded() {
    const links = [...this.links.values()];
    const counts = await Promise.all(links.map((link) => link.decoded()));
    return Object.fromEntries(links.map((link, number) => [link.peer.user_id, counts[number]]));
  }

  linkTo(userId) {
    return [...this.links.values()].find((link) => link.peer.user_id === userId) ?? null;
  }

  // What is known of somebody's device: { audio, video, screen, is_connected, … }.
  peerOf(userId) {
    return this.linkTo(userId)?.peer ?? null;
  }
}

async function sha256(content) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
