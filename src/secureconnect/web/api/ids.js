// Names nobody else chooses, also where the page came without TLS and `crypto.randomUUID` is missing.

export function newId() {
  const random = crypto.getRandomValues(new Uint8Array(16));
  return [...random].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
