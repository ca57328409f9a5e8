/** Work that many ask for and that is done once at a time: asked for meanwhile, it is done once more afterwards. */
export class Again {
  #isAsked = false;
  /** @type {Promise<void>?} */
  #running = null;

  /** @param {() => Promise<void>} work */
  constructor(work) {
    this.work = work;
  }

  /** What is being done, or null. @returns {Promise<void>?} */
  get running() {
    return this.#running;
  }

  /** @returns {Promise<void>} when it has been done, begun after this call.  Rejects as the work does */
  run() {
    this.#isAsked = true;
    this.#running ??= this.#loop();
    return this.#running;
  }

  async #loop() {
    try {
      while (this.#isAsked) {
        this.#isAsked = false;
        await this.work();
      }
    } finally {
      this.#running = null;
    }
  }
}
