// Who is who: one's own identity (cross-signing), other people's, and their devices.

import { Problem } from "./problem.js";

/**
 * @typedef {import("./machine.js").Machine} Machine
 * @typedef {import("./rooms.js").Trusted} Trusted
 * @typedef {import("../vendor/matrix-sdk-crypto-wasm/pkg/matrix_sdk_crypto_wasm.js").Device} OlmDevice
 *
 * @typedef {object} Device
 * @property {string} deviceId
 * @property {Trusted} trust `verified`, or `unverified`
 * @property {boolean} isSigned by its owner's identity
 * @property {boolean} isMine this very device
 * @property {string} fingerprint its Ed25519 key, for people to compare
 * @property {number} firstSeenMs Unix milliseconds, by this machine's clock
 */

export class Trust {
  /** people are not sent keys for devices that they have not signed themselves, once they are verified */
  isStrict = true;

  /** @param {Machine} machine */
  constructor(machine) {
    this.machine = machine;
  }

  /**
   * @param {string} userId
   * @returns {Promise<Trusted>} `unknown`: no identity is published, or nobody has asked for it yet
   */
  of(userId) {
    return this.machine.withIdentity(userId, (identity) => {
      if (!identity) return "unknown";
      if (identity.isVerified()) return "verified";
      const isNew = "identityNeedsUserApproval" in identity && identity.identityNeedsUserApproval();
      return identity.hasVerificationViolation() || isNew ? "changed" : "unverified";
    });
  }

  /**
   * Ask for it and its devices first, where they are not known.
   * @param {string} userId
   */
  async look(userId) {
    this.machine.stale.add(userId);
    await this.machine.meet([userId]);
    return { trust: await this.of(userId), devices: await this.devices(userId) };
  }

  /**
   * As far as they are known.
   * @param {string} userId
   * @returns {Promise<Device[]>}
   */
  devices(userId) {
    return this.machine.withDevices(userId, (devices) =>
      devices.map((device) => ({
        deviceId: device.deviceId.toString(),
        trust: device.isVerified() ? "verified" : "unverified",
        isSigned: device.isCrossSignedByOwner(),
        isMine: this.#isMine(device),
        fingerprint: device.ed25519Key?.toBase64() ?? "",
        firstSeenMs: Number(device.firstTimeSeen()),
      })),
    );
  }

  /**
   * The person's keys have changed, and that is fine: they are `unverified` from then on.
   * @param {string} userId
   */
  approve(userId) {
    return this.machine.withIdentity(userId, async (identity) => {
      if (identity?.hasVerificationViolation()) await this.machine.run(() => identity.withdrawVerification());
      if (identity && "pinCurrentMasterKey" in identity) {
        await this.machine.run(() => identity.pinCurrentMasterKey());
      }
    });
  }

  /**
   * From whom a message is. Asked strictly, the library tells alone whether there is any doubt; else, of which kind.
   * @param {import("../vendor/matrix-sdk-crypto-wasm/pkg/matrix_sdk_crypto_wasm.js").DecryptedRoomEvent} opened
   * @param {string} sender
   * @returns {Promise<import("./rooms.js").Believed>}
   */
  async ofMessage(opened, sender) {
    const { ShieldStateCode } = this.machine.library;
    if (opened.shieldState(true).code === undefined) return "verified";
    const { code } = opened.shieldState(false);
    if (code === undefined) return "unverified";
    if (code === ShieldStateCode.VerificationViolation) return "changed";
    if (code !== ShieldStateCode.UnsignedDevice) return "unknown";
    return (await this.of(sender)) === "verified" ? "unsigned" : "unverified";
  }

  /**
   * Before something is sealed for these people. Rejects with IDENTITY_CHANGED and `users` where one who was verified
   * has other keys now.
   * @param {string[]} users
   */
  async require(users) {
    const changed = [];
    for (const user of users) {
      const [isChanged, isVerified] = await this.machine.withIdentity(user, (identity) => [
        identity?.hasVerificationViolation() === true,
        identity?.isVerified() === true,
      ]);
      if (this.isStrict && isChanged) changed.push(user);
      await this.#withhold(user, this.isStrict && isVerified);
    }
    if (changed.length > 0) {
      const message = "Somebody whom you have verified has other keys now.";
      throw new Problem("IDENTITY_CHANGED", message, { details: { users: changed } });
    }
  }

  /**
   * Devices that their owner has not signed get no keys while the owner is guarded.
   * @param {string} user
   * @param {boolean} isGuarded
   */
  #withhold(user, isGuarded) {
    return this.machine.withDevices(user, async (devices) => {
      for (const device of devices) {
        const isHeldBack = isGuarded && !this.#isMine(device) && !device.isCrossSignedByOwner();
        if (isHeldBack !== device.isBlacklisted()) await this.#setHeldBack(device, isHeldBack);
      }
    });
  }

  /**
   * @param {OlmDevice} device
   * @param {boolean} isHeldBack
   */
  async #setHeldBack(device, isHeldBack) {
    await this.machine.run((olm, { LocalTrust }) =>
      device.setLocalTrust(isHeldBack ? LocalTrust.BlackListed : LocalTrust.Unset),
    );
  }

  /** @param {OlmDevice} device */
  #isMine(device) {
    const { user, deviceId } = this.machine.account;
    return device.deviceId.toString() === deviceId && this.machine.idOf(device.userId) === user;
  }

  // one's own identity

  /**
   * exists: somebody (this device or another) has published it.  canSign: its private keys are here.
   * isVerified: this device is signed by it, and it is trusted here.
   */
  async own() {
    const { machine } = this;
    const [isKnown, isTrusted] = await machine.withIdentity(machine.account.user, (identity) => [
      identity !== undefined,
      identity?.isVerified() === true,
    ]);
    const status = await machine.run((olm) => olm.crossSigningStatus());
    const canSign = status.hasMaster && status.hasSelfSigning && status.hasUserSigning;
    const mine = (await this.devices(machine.account.user)).find((device) => device.isMine);
    const isVerified = isTrusted && mine?.isSigned === true;
    const exists = isKnown && !(await machine.vault.get("unpublished"));
    return { exists, canSign, isVerified };
  }

  /**
   * Make one's identity, sign this device with it, and publish both. Rejects with IDENTITY_EXISTS when there is one
   * whose keys are elsewhere (verify with a device that has them, or `reset`), and as the server does for the password.
   * @param {{password: string, totpCode?: string, reset?: boolean}} given
   */
  async bootstrap({ password, totpCode, reset = false }) {
    const { machine } = this;
    machine.stale.add(machine.account.user);
    await machine.meet([machine.account.user]);
    const own = await this.own();
    if (own.exists && own.canSign && !reset) return;
    if (own.exists && !reset) {
      throw new Problem("IDENTITY_EXISTS", "Another device of yours has made your identity.");
    }
    await machine.vault.set("unpublished", true); // the library holds it for published from here on
    const made = await machine.run((olm) => olm.bootstrapCrossSigning(reset));
    if (made.uploadKeysRequest) await machine.send(made.uploadKeysRequest);
    const keys = JSON.parse(made.uploadSigningKeysRequest.body);
    const totp = totpCode ? { totp_code: totpCode } : {};
    await machine.account.ask("POST", "/v1/e2ee/signing-keys", { body: { ...keys, password, ...totp } });
    await machine.send(made.uploadSignaturesRequest);
    await machine.vault.set("unpublished", false);
    machine.stale.add(machine.account.user);
    await machine.meet([machine.account.user]);
  }
}
