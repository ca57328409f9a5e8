// Two devices whose people compare seven pictures: that tells them that no one stands between (SAS, by to-device
// messages). Of oneself's devices, and of two people's.

import { Problem } from "./problem.js";

/**
 * @typedef {import("./machine.js").Machine} Machine
 * @typedef {import("../vendor/matrix-sdk-crypto-wasm/pkg/matrix_sdk_crypto_wasm.js").VerificationRequest} Request
 * @typedef {import("../vendor/matrix-sdk-crypto-wasm/pkg/matrix_sdk_crypto_wasm.js").Sas} Sas
 * @typedef {import("../vendor/matrix-sdk-crypto-wasm/pkg/matrix_sdk_crypto_wasm.js").Device} OlmDevice
 *
 * @typedef {"requested" | "ready" | "started" | "compare" | "confirmed" | "done" | "cancelled"} Phase
 *   requested: the one who was asked must accept.  compare: there are emojis to look at.  confirmed: here, not there yet
 *
 * @typedef {object} Flow
 * @property {string} flowId
 * @property {string} userId the other's
 * @property {string?} deviceId the other's, once one has answered
 * @property {Phase} phase
 * @property {boolean} weStarted
 * @property {boolean} isSelf both devices are one's own
 * @property {{index: number, symbol: string, name: string}[]?} emojis seven; index: 0 to 63, for texts in another language
 * @property {{code: string, byUs: boolean}?} cancelled code: `m.user`, `m.timeout`, `m.mismatched_sas`, `m.accepted` …
 */

const MOST_FLOWS = 20; // at once; further ones of others are not heard of
const MOST_DEVICES = 10; // of another person that are asked at once
const LATE_MS = 1_000;
const CANCEL = "m.key.verification.cancel";

export class Verifications {
  /** @type {Map<string, Known>} */
  #flows = new Map();

  /**
   * @param {Machine} machine
   * @param {(flow: Flow) => void} tell each time a flow is another
   */
  constructor(machine, tell) {
    this.machine = machine;
    this.tell = tell;
  }

  /** Called with the other's user id when a flow has ended well. @type {(userId: string, isSelf: boolean) => void} */
  onDone = () => {};

  /** @returns {Flow[]} */
  list() {
    return [...this.#flows.values()].map((known) => this.#describe(known));
  }

  /**
   * Ask a person to compare; without `deviceId` all of their devices that have keys, and the first that accepts is
   * the one.
   * @param {string} userId
   * @param {string?} [deviceId]
   * @returns {Promise<Flow>}
   */
  async begin(userId, deviceId = null) {
    const { machine } = this;
    machine.stale.add(userId);
    await machine.meet([userId]);
    const isSelf = userId === machine.account.user;
    if (isSelf && deviceId === null) return this.#describe(await this.#askOwn());
    const known = await machine.withDevices(userId, (devices) => this.#ask(devices, userId, deviceId));
    return this.#describe(known);
  }

  /**
   * The library asks one device, and cancels both where two are asked; but it takes the answer of any. So the others are
   * asked the same, and told when it is over.
   * @param {OlmDevice[]} devices
   * @param {string} userId
   * @param {string?} deviceId
   */
  async #ask(devices, userId, deviceId) {
    const { machine } = this;
    const asked = devices
      .filter((each) => deviceId === null || each.deviceId.toString() === deviceId)
      .slice(0, MOST_DEVICES);
    if (asked.length === 0) throw new Problem("NO_DEVICE", "This person has no device with keys.");
    const [request, { id, type, event_type, txn_id, body }] = await machine.run(
      (olm, { VerificationMethod }) => asked[0].requestVerification([VerificationMethod.SasV1]),
    );
    const [first, ...others] = asked.map((each) => each.deviceId.toString());
    const known = this.#add(request, others.length ? null : first, others);
    const content = JSON.parse(body).messages[machine.userName(userId)][first];
    await machine.send({
      id,
      type,
      event_type,
      txn_id,
      body: this.#toAll(userId, [first, ...others], content),
    });
    return known;
  }

  /**
   * @param {string} userId
   * @param {string[]} devices
   * @param {object} content
   */
  #toAll(userId, devices, content) {
    const messages = {
      [this.machine.userName(userId)]: Object.fromEntries(devices.map((id) => [id, content])),
    };
    return JSON.stringify({ messages });
  }

  /**
   * To the devices that were asked, too: it is over for them.
   * @param {Known} known
   * @param {"m.accepted" | "m.user"} code
   */
  async #release({ request, others }, code) {
    const answering = request.otherDeviceId?.toString();
    const waiting = others.splice(0).filter((id) => id !== answering);
    if (waiting.length === 0) return;
    const content = { transaction_id: request.flowId, code, reason: "" };
    const user = this.machine.idOf(request.otherUserId);
    await this.machine.account.ask("PUT", `/v1/e2ee/to-device/${CANCEL}/${crypto.randomUUID()}`, {
      body: JSON.parse(this.#toAll(user, waiting, content)),
    });
  }

  #askOwn() {
    const { machine } = this;
    return machine.withIdentity(machine.account.user, async (identity) => {
      if (!identity || !("trustsOurOwnDevice" in identity)) {
        throw new Problem("NO_IDENTITY", "There is no identity of yours yet.");
      }
      const [request, message] = await machine.run((olm, { VerificationMethod }) =>
        identity.requestVerification([VerificationMethod.SasV1]),
      );
      const known = this.#add(request, null, []);
      await machine.send(message);
      return known;
    });
  }

  /**
   * @param {string} flowId
   */
  async accept(flowId) {
    const { request } = this.#require(flowId);
    await this.#sendAll(
      await this.machine.run((olm, { VerificationMethod }) => [
        request.acceptWithMethods([VerificationMethod.SasV1]),
      ]),
    );
    await this.#look(flowId);
  }

  /**
   * The pictures are the same.
   * @param {string} flowId
   */
  async confirm(flowId) {
    const sas = this.#sasOf(this.#require(flowId));
    if (!sas) throw new Problem("NOTHING_TO_CONFIRM", "There is nothing to compare yet.");
    await this.#sendAll(await this.machine.run(() => sas.confirm()));
    await this.#look(flowId);
  }

  /**
   * @param {string} flowId
   * @param {boolean} [isMismatch] the pictures are not the same
   */
  async cancel(flowId, isMismatch = false) {
    await this.#cancelOne(this.#require(flowId), isMismatch);
    await this.#look(flowId);
  }

  /**
   * @param {Known} known
   * @param {boolean} isMismatch
   */
  async #cancelOne(known, isMismatch) {
    const sas = this.#sasOf(known);
    await this.#sendAll(
      await this.machine.run(() => [
        sas && isMismatch ? sas.cancelWithCode("m.mismatched_sas") : known.request.cancel(),
      ]),
    );
  }

  /**
   * What has come by to-device message: among it may be somebody who asks to compare.
   * @param {import("./machine.js").ToDevice[]} events
   */
  hear(events) {
    for (const { type, sender, content } of events) {
      if (type !== "m.key.verification.request") continue;
      const { olm, library } = this.machine;
      const request = olm.getVerificationRequest(new library.UserId(sender), content.transaction_id);
      if (request && !this.#flows.has(request.flowId) && this.#flows.size < MOST_FLOWS) {
        this.#look(this.#add(request, content.from_device, []).flowId).catch(() => {});
      }
    }
  }

  close() {
    for (const { timer } of this.#flows.values()) clearTimeout(timer);
    this.#flows.clear();
  }

  /**
   * @param {Request} request
   * @param {string?} deviceId
   * @param {string[]} others of the person's devices, which were asked the same
   * @returns {Known}
   */
  #add(request, deviceId, others) {
    const { flowId } = request;
    const timer = setTimeout(() => this.#expire(flowId), request.timeRemainingMillis() + LATE_MS);
    /** @type {Known} */
    const known = {
      flowId,
      request,
      deviceId,
      others,
      timer,
      hasSas: false,
      hasBegun: false,
      isLate: false,
      said: "",
    };
    this.#flows.set(flowId, known);
    request.registerChangesCallback(async () => this.#lookSoon(flowId));
    return known;
  }

  /** @param {string} flowId */
  #expire(flowId) {
    const known = this.#flows.get(flowId);
    if (!known) return;
    known.isLate = true;
    this.#cancelOne(known, false)
      .then(() => this.#look(flowId))
      .catch(() => {});
  }

  /**
   * The library calls while it is at work: it is looked at when that is over.
   * @param {string} flowId
   */
  #lookSoon(flowId) {
    setTimeout(() => this.#look(flowId).catch(() => {}), 0);
  }

  /**
   * Do what a flow needs from here without anybody's doing, and tell how it stands.
   * @param {string} flowId
   */
  async #look(flowId) {
    const known = this.#flows.get(flowId);
    if (!known) return;
    if (known.request.isReady() && known.request.weStarted() && !known.hasBegun) await this.#startSas(known);
    const sas = this.#sasOf(known);
    if (sas && !known.hasSas) {
      known.hasSas = true;
      sas.registerChangesCallback(async () => this.#lookSoon(flowId));
      if (!sas.hasBeenAccepted()) await this.#sendAll(await this.machine.run(() => [sas.accept()]));
    }
    const flow = this.#describe(known);
    const said = JSON.stringify(flow);
    if (said !== known.said) {
      known.said = said;
      this.tell(flow);
    }
    if (flow.phase === "done" || flow.phase === "cancelled") this.#end(known, flow);
  }

  /** @param {Known} known */
  async #startSas(known) {
    known.hasBegun = true;
    await this.#release(known, "m.accepted"); // this device has answered first
    const started = await this.machine.run(() => known.request.startSas());
    if (started) await this.machine.send(started[1]);
  }

  /**
   * @param {Known} known
   * @param {Flow} flow
   */
  #end(known, flow) {
    if (!this.#flows.delete(known.flowId)) return;
    clearTimeout(known.timer);
    this.#release(known, "m.user").catch(() => {}); // they notice by themselves, later
    if (flow.phase === "done") this.onDone(flow.userId, flow.isSelf);
  }

  /**
   * @param {Known} known
   * @returns {Flow}
   */
  #describe(known) {
    const { request } = known;
    const sas = this.#sasOf(known);
    const info = request.cancelInfo ?? sas?.cancelInfo();
    const code = known.isLate ? "m.timeout" : info?.cancelCode();
    const pictures = sas?.canBePresented() ? sas.emoji() : undefined;
    const indexes = pictures ? sas?.emojiIndex() : undefined;
    return {
      flowId: known.flowId,
      userId: this.machine.idOf(request.otherUserId),
      deviceId: request.otherDeviceId?.toString() ?? known.deviceId,
      phase: this.#phase(known),
      weStarted: request.weStarted(),
      isSelf: request.isSelfVerification(),
      emojis:
        pictures?.map(({ symbol, description }, at) => ({
          index: indexes?.[at] ?? 0,
          symbol,
          name: description,
        })) ?? null,
      cancelled: info && code ? { code, byUs: info.cancelledbyUs() } : null,
    };
  }

  /**
   * @param {Known} known
   * @returns {Phase}
   */
  #phase(known) {
    const { request } = known;
    const sas = this.#sasOf(known);
    if (request.isCancelled() || sas?.isCancelled() || request.isPassive()) return "cancelled";
    if (request.isDone() || sas?.isDone()) return "done";
    if (sas?.haveWeConfirmed()) return "confirmed";
    if (sas?.canBePresented()) return "compare";
    if (sas) return "started";
    return request.isReady() ? "ready" : "requested";
  }

  /**
   * @param {Known} known
   * @returns {Sas | null}
   */
  #sasOf(known) {
    const found = known.request.getVerification();
    if (found && "emojiIndex" in found) known.sas = found; // not given any more once it has ended
    return known.sas ?? null;
  }

  /** @param {(import("./machine.js").Outgoing | undefined)[]} requests */
  async #sendAll(requests) {
    for (const request of requests) if (request) await this.machine.send(request);
  }

  /** @param {string} flowId */
  #require(flowId) {
    const known = this.#flows.get(flowId);
    if (!known) throw new Problem("NO_SUCH_FLOW", "This comparison is over.");
    return known;
  }
}

/**
 * @typedef {{flowId: string, request: Request, deviceId: string?, others: string[], timer: ReturnType<typeof setTimeout>,
 *   hasSas: boolean, hasBegun: boolean, isLate: boolean, said: string, sas?: Sas}} Known
 */
