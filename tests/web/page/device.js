// A device at a page: an account, its chat socket, and the client's encryption with nothing around it.
// Runs before any page's own scripts. What has to outlive a reload is in sessionStorage, which every tab has for itself.

const PROTOCOL = "secureconnect.v1";

class Device {
  constructor() {
    this.ears = new Map(); // of events of the chat socket
    this.heard = []; // from the encryption: [event, data]
    this.refused = null; // a part of paths that cannot be asked
    this.asked = []; // of the server: [path, body]
    this.tamper = (path, data) => data; // what the server could do to its answers
    this.become(JSON.parse(sessionStorage.getItem("account") ?? "{}"));
  }

  // The data of an answer; what is refused is thrown with its status and code.
  async ask(method, path, { body, idempotencyKey } = {}) {
    if (this.refused && path.includes(this.refused)) throw Object.assign(new Error("no answer"), { code: "UNREACHABLE" });
    this.asked.push([path, body]);
    const headers = { "Content-Type": "application/json" };
    if (this.token) headers.Authorization = `Bearer ${this.token}`;
    if (idempotencyKey) headers["Idempotency-Key"] = idempotencyKey;
    const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
    const { data, error } = await answer.json();
    if (!answer.ok) throw Object.assign(new Error(error.message), error, { status: answer.status });
    return this.tamper(path, data);
  }

  async enter(way, body) {
    const { user, access_token, device_id } = await this.ask("POST", `/v1/auth/${way}`, { body });
    const { server_name } = await this.ask("GET", "/v1/server");
    this.become({ user: user.user_id, deviceId: device_id, token: access_token, serverName: server_name });
  }

  become(account) {
    sessionStorage.setItem("account", JSON.stringify(account));
    Object.assign(this, account, { account });
  }

  // Resolves when the keys are published and the socket is open.
  async open(module) {
    this.lib = await import(module);
    const { user, deviceId, serverName } = this;
    this.crypto = await this.lib.open({
      ask: (...asked) => this.ask(...asked),
      on: (type, hear) => this.listen(type, hear),
      user,
      deviceId,
      serverName,
      storeName: `sc-keys:${user}:${deviceId}`,
    });
    for (const event of ["decrypted", "trust", "verification", "backup", "restarted", "failed", "leader"]) {
      this.crypto.on(event, (data) => this.heard.push([event, data]));
    }
    await Promise.all([this.connect(), this.crypto.ready()]);
  }

  connect() {
    const address = new URL("/v1/ws/chat", location.href.replace("http", "ws"));
    this.socket = new WebSocket(address, [PROTOCOL, `bearer.${this.token}`]);
    return new Promise((resolve) => {
      this.socket.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        this.tell(event.type === "hello" ? { type: "online" } : event);
        resolve();
      };
    });
  }

  listen(type, hear) {
    const ears = this.ears.get(type) ?? new Set();
    this.ears.set(type, ears.add(hear));
    return () => ears.delete(hear);
  }

  tell(event) {
    for (const hear of this.ears.get(event.type) ?? []) hear(event);
  }

  // The id of the message.
  async say(conversation, members, body) {
    const id = crypto.randomUUID();
    const content = await this.crypto.encrypt(conversation, members, { id, body });
    const message = {
      conversation_id: conversation,
      client_message_id: id,
      content,
      is_encrypted: true,
    };
    return (await this.ask("POST", "/v1/messages", { body: message })).message_id;
  }

  // What the message says, or why that is not known.
  async read(messageId) {
    const opened = await this.crypto.decrypt(await this.ask("GET", `/v1/messages/${messageId}`));
    return opened.payload?.body ?? opened.reason;
  }

  // The latest thing heard of this event, for which the condition holds.
  last(event, holds = () => true) {
    return this.heard.findLast(([type, data]) => type === event && holds(data))?.[1] ?? null;
  }
}

// What was refused: its code.
async function refusal(promise) {
  try {
    await promise;
    return null;
  } catch (error) {
    return error.code ?? String(error);
  }
}

if (location.origin !== "null") Object.assign(window, { device: new Device(), refusal });
