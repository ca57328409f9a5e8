// What one device sees and hears of its call, as one film: the pictures side by side, the sounds together.

const WIDTH = 320;
const HEIGHT = 240;
const RATE = 10;
const TYPE = "video/webm;codecs=vp8,opus";

export class Recorder {
  // call: whose links are recorded; who comes later is not.
  constructor(call) {
    const theirs = [...document.querySelectorAll("video")].map((video) => video.srcObject);
    const streams = [call.camera, ...theirs];
    this.videos = streams.map((stream) => {
      const video = Object.assign(document.createElement("video"), { srcObject: stream, muted: true });
      video.play();
      return video;
    });
    this.canvas = Object.assign(document.createElement("canvas"), {
      width: WIDTH * this.videos.length,
      height: HEIGHT,
    });
    this.sounds = new AudioContext();
    const mixed = this.sounds.createMediaStreamDestination();
    for (const stream of streams) this.sounds.createMediaStreamSource(stream).connect(mixed);
    const film = new MediaStream([
      ...this.canvas.captureStream(RATE).getTracks(),
      ...mixed.stream.getTracks(),
    ]);
    this.media = new MediaRecorder(film, { mimeType: TYPE });
  }

  draw() {
    const context = this.canvas.getContext("2d");
    this.videos.forEach((video, place) => context.drawImage(video, place * WIDTH, 0, WIDTH, HEIGHT));
  }

  // So many parts of so many milliseconds, in their order: only the first has the header of the file.
  async *parts(count, eachMs) {
    const drawing = setInterval(() => this.draw(), 1_000 / RATE);
    const came = [];
    let wake;
    this.media.ondataavailable = ({ data }) => {
      if (data.size) came.push(data);
      wake?.();
    };
    this.media.start(eachMs);
    try {
      for (let number = 0; number < count; number += 1) {
        while (!came.length) await new Promise((resolve) => (wake = resolve));
        yield came.shift();
      }
    } finally {
      this.media.stop();
      clearInterval(drawing);
      await this.sounds.close();
    }
  }
}
