// One device's connection with another: perfect negotiation, in which the smaller peer_id gives way.
// Source: W3C WebRTC 1.0, section 10.7.

export class Link {
  constructor(call, peer) {
    this.call = call;
    this.peer = peer;
    this.isPolite = call.peerId < peer.peer_id;
    this.hasBegun = false;
    this.isOffering = false;
    this.ignoresOffer = false;
    this.streams = new Map(); // by the id of each track that came: the id of its stream
    this.screenId = null; // the stream that is their screen
    this.hearing = Promise.resolve(); // one frame after the other
    this.pc = new RTCPeerConnection(call.connecting);
    this.pc.onnegotiationneeded = () => this.offer();
    this.pc.onicecandidate = ({ candidate }) => candidate && this.send("ice_candidate", { candidate });
    this.pc.ontrack = ({ track, streams: [stream] }) => this.show(track, stream);
    this.pc.oniceconnectionstatechange = () => {
      if (this.pc.iceConnectionState === "failed") this.pc.restartIce();
    };
  }

  // Send what one has: our offer follows, or it is in the answer to theirs.
  begin() {
    if (this.hasBegun) return;
    this.hasBegun = true;
    for (const stream of [this.call.camera, this.call.screen]) if (stream) this.add(stream);
  }

  add(stream) {
    for (const track of stream.getTracks()) this.pc.addTrack(track, stream);
  }

  remove(stream) {
    const tracks = new Set(stream.getTracks());
    for (const sender of this.pc.getSenders()) if (tracks.has(sender.track)) this.pc.removeTrack(sender);
  }

  send(type, fields) {
    this.call.send({ type, target_id: this.peer.peer_id, ...fields });
  }

  sendDescription() {
    const { type, sdp } = this.pc.localDescription;
    this.send(type, { sdp });
  }

  async offer() {
    this.isOffering = true;
    try {
      await this.pc.setLocalDescription();
      this.sendDescription();
    } finally {
      this.isOffering = false;
    }
  }

  // The signaling was away: an offer made meanwhile is lost.
  resync() {
    if (this.pc.signalingState === "have-local-offer") this.sendDescription();
  }

  comeBack(restartsIce) {
    this.begin();
    this.resync();
    if (restartsIce) this.pc.restartIce();
  }

  hear(frame) {
    switch (frame.type) {
      case "offer":
      case "answer":
        this.hearing = this.hearing.then(() => this.describe(frame)).catch(report);
        break;
      case "ice_candidate":
        this.hearing = this.hearing.then(() => this.addCandidate(frame.candidate)).catch(report);
        break;
      case "mute_audio":
      case "mute_video":
        this.peer[frame.type.slice("mute_".length)] = !frame.muted;
        break;
      case "screen_share_started":
        this.peer.screen = true;
        this.screenId = frame.stream_id;
        break;
      case "screen_share_stopped":
        this.peer.screen = false;
        this.screenId = null;
        break;
    }
  }

  async describe({ type, sdp }) {
    const collides = type === "offer" && (this.isOffering || this.pc.signalingState !== "stable");
    this.ignoresOffer = collides && !this.isPolite;
    if (this.ignoresOffer || this.pc.signalingState === "closed") return;
    if (type === "answer" && this.pc.signalingState !== "have-local-offer") return; // of an offer sent twice
    await this.pc.setRemoteDescription({ type, sdp }); // rolls our own offer back
    if (type === "offer") {
      this.begin();
      await this.pc.setLocalDescription();
      this.sendDescription();
    }
  }

  async addCandidate(candidate) {
    try {
      await this.pc.addIceCandidate(candidate);
    } catch (error) {
      if (!this.ignoresOffer && this.pc.signalingState !== "closed") throw error;
    }
  }

  show(track, stream) {
    this.streams.set(track.id, stream.id);
    if (track.kind !== "video") return;
    const video = Object.assign(document.createElement("video"), { muted: true, autoplay: true });
    video.srcObject = stream;
    document.getElementById("people").append(video);
    stream.onremovetrack = () => {
      this.streams.delete(track.id);
      video.remove();
    };
  }

  async decoded() {
    const counts = { camera: 0 };
    for (const each of (await this.pc.getStats()).values()) {
      if (each.type !== "inbound-rtp" || each.kind !== "video") continue;
      const stream = this.streams.get(each.trackIdentifier);
      if (stream) counts[stream === this.screenId ? "screen" : "camera"] = each.framesDecoded;
    }
    return counts;
  }

  // The kinds of the two ends that media goes between at present: [ours, theirs], like ["relay", "host"].
  async way() {
    const stats = await this.pc.getStats();
    const transport = [...stats.values()].find((each) => each.type === "transport");
    const pair = stats.get(transport?.selectedCandidatePairId);
    return pair && [pair.localCandidateId, pair.remoteCandidateId].map((id) => stats.get(id)?.candidateType);
  }

  close() {
    const shown = new Set(this.streams.values());
    for (const video of document.querySelectorAll("video")) {
      if (shown.has(video.srcObject.id)) video.remove();
    }
    this.pc.close();
  }
}

function report(error) {
  console.error(error);
}
