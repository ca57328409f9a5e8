// What one device says to another alone, by whatever way: descriptions of calls.

import { Problem } from "./problem.js";

/**
 * @typedef {import("./machine.js").Machine} Machine
 * @typedef {import("./trust.js").Trust} Trust
 * @typedef {import("./rooms.js").Trusted} Trusted
 */

export class Sealing {
  /**
   * @param {Machine} machine
   * @param {Trust} trust
   */
  constructor(machine, trust) {
    this.machine = machine;
    this.trust = trust;
  }

  /**
   * @param {string} userId
   * @param {string} deviceId
   * @param {string} type
   * @param {object} content
   * @returns {Promise<object>} JSON that only this device can open.  Rejects with NO_DEVICE, and as `Trust.require`
   */
  async seal(userId, deviceId, type, content) {
    const { machine } = this;
    await machine.meet([userId]);
    await this.trust.require([userId]);
    return machine.withDevices(userId, async (devices) => {
      const device = devices.find((each) => each.deviceId.toString() === deviceId);
      if (!device) throw new Problem("NO_DEVICE", "This device has no keys.");
      if (device.isBlacklisted()) {
        throw new Problem("DEVICE_UNVERIFIED", "A person you have verified has not signed this device.");
      }
      return JSON.parse(await machine.run(() => device.encryptToDeviceEvent(type, content)));
    });
  }

  /**
   * It can be opened once.
   * @param {string} userId whose device has sealed it
   * @param {object} content as `seal` gave it
   * @returns {Promise<{type: string, content: Record<string, any>, device: string, trust: Trusted}>} rejects with
   *   CANNOT_OPEN
   */
  async unseal(userId, content) {
    const { machine } = this;
    const event = { type: "m.room.encrypted", sender: machine.userName(userId), content };
    // The library opens to-device messages as it takes them in; the counts it is not told stay as they are.
    const [opened] = await machine.run((olm, { DeviceLists }) =>
      olm.receiveSyncChangesMsc4186(
        JSON.stringify([event]),
        new DeviceLists(),
        new Map(),
        undefined,
        machine.untrusting,
      ),
    );
    if (!opened || !("encryptionInfo" in opened)) {
      throw new Problem("CANNOT_OPEN", "What this device has sent cannot be opened.");
    }
    const { senderCurve25519Key } = opened.encryptionInfo;
    const device = await this.#device(userId, senderCurve25519Key);
    if (!device)
      throw new Problem("CANNOT_OPEN", "It was sealed by a device that this person does not have.");
    const inner = JSON.parse(opened.rawEvent);
    machine.pumpLater(); // a session that begins may want something sent
    return {
      type: inner.type,
      content: inner.content,
      ...device,
    };
  }

  /**
   * The person's device with this key; asked for again when it is not known.
   * @param {string} userId
   * @param {string} key
   */
  async #device(userId, key) {
    const found = await this.#known(userId, key);
    if (found) return found;
    this.machine.stale.add(userId);
    await this.machine.meet([userId]);
    return this.#known(userId, key);
  }

  /**
   * @param {string} userId
   * @param {string} key
   * @returns {Promise<{device: string, trust: Trusted} | undefined>}
   */
  #known(userId, key) {
    return this.machine.withDevices(userId, (devices) => {
      const device = devices.find((each) => each.curve25519Key?.toBase64() === key);
      if (!device) return undefined;
      return { device: device.deviceId.toString(), trust: device.isVerified() ? "verified" : "unverified" };
    });
  }
}
