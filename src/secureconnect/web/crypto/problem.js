/**
 * What went wrong, in a form that passes from tab to tab.
 *
 * code: of the server's refusals, or `CRYPTO_…`, or one of those that docs/e2ee.md names.  status: of a refusal.
 * passes: the same may succeed later, as nothing was wrong with it.
 */
export class Problem extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{status?: number, details?: object, passes?: boolean}} [more]
   */
  constructor(code, message, { status = 0, details = {}, passes = false } = {}) {
    super(message);
    this.name = "Problem";
    this.code = code;
    this.status = status;
    this.details = details;
    this.passes = passes;
  }

  /**
   * Of anything that was thrown.
   * @param {unknown} error
   * @returns {Problem}
   */
  static of(error) {
    if (error instanceof Problem) return error;
    const { code, message, status, details, passes } = /** @type {Partial<Problem>} */ (error ?? {});
    if (typeof code === "string") return new Problem(code, message ?? code, { status, details, passes });
    return new Problem("CRYPTO_FAILED", message ?? String(error));
  }

  /** What can be posted to another tab. */
  told() {
    const { code, message, status, details, passes } = this;
    return { code, message, status, details, passes };
  }
}
