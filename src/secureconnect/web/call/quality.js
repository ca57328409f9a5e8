// How well media comes and goes, from what changed between two looks: counters begin anew when an offer is rolled back.

/** @import { Link } from "./link.js" */

const LOOK_MS = 2_000;
const FAIR = { loss: 0.03, rtt_s: 0.3 };
const POOR = { loss: 0.1, rtt_s: 0.8 };

/**
 * lost, came: packets.  frames: of their pictures, decoded.  rtt_s: of what we send, as they report it.
 * @typedef {{ lost: number, came: number, frames: number, rtt_s: number, theirLoss: number }} Totals
 */

export class Quality {
  /** @param {() => Iterable<Link>} links those there are at each look */
  constructor(links) {
    /** @type {WeakMap<Link, Totals>} */
    this.before = new WeakMap();
    this.looking = setInterval(() => {
      for (const link of links()) if (link.state.peek() === "connected") this.look(link);
    }, LOOK_MS);
  }

  /** @param {Link} link */
  async look(link) {
    const now = totals(await link.pc.getStats());
    const before = this.before.get(link);
    this.before.set(link, now);
    if (!before || link.isClosed) return;
    const came = Math.max(0, now.came - before.came);
    const lost = Math.max(0, now.lost - before.lost);
    const isFrozen = link.shows.peek() && link.camera.peek() !== null && now.frames === before.frames;
    link.quality.value = grade(Math.max(lost / (came + lost || 1), now.theirLoss), now.rtt_s, isFrozen);
  }

  end() {
    clearInterval(this.looking);
  }
}

/**
 * @param {number} loss a part of 1
 * @param {number} rtt_s
 * @param {boolean} isFrozen
 */
export function grade(loss, rtt_s, isFrozen) {
  if (isFrozen || loss > POOR.loss || rtt_s > POOR.rtt_s) return "poor";
  return loss > FAIR.loss || rtt_s > FAIR.rtt_s ? "fair" : "good";
}

/** @param {RTCStatsReport} report */
function totals(report) {
  /** @type {Totals} */
  const sum = { lost: 0, came: 0, frames: 0, rtt_s: 0, theirLoss: 0 };
  report.forEach((each) => {
    if (each.type === "inbound-rtp") {
      sum.lost += Math.max(0, each.packetsLost ?? 0);
      sum.came += each.packetsReceived ?? 0;
      sum.frames += each.framesDecoded ?? 0;
    } else if (each.type === "remote-inbound-rtp") {
      sum.rtt_s = Math.max(sum.rtt_s, each.roundTripTime ?? 0);
      sum.theirLoss = Math.max(sum.theirLoss, each.fractionLost ?? 0);
    }
  });
  return sum;
}
