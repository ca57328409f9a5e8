// Two devices of @matrix-org/matrix-sdk-crypto-wasm talk through a real server; what they send and are answered is
// printed. Run by record_olm.py.  argv: the path of the package's node.mjs, and JSON {url, server_name, people}.
const { DecryptionSettings, DeviceId, DeviceLists, EncryptionSettings, OlmMachine, RequestType, RoomId, TrustRequirement, UserId } =
  await import(process.argv[2]);
const { url, server_name, people } = JSON.parse(process.argv[3]);
const exchanges = [];

async function ask(number, method, path, body) {
  const answer = await fetch(url + path, {
    method,
    headers: { authorization: `Bearer ${people[number].token}`, "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const said = await answer.json();
  exchanges.push({ person: number, method, path, body: body ?? null, status: answer.status, answer: said.data ?? said.error });
  if (!answer.ok) throw new Error(`${method} ${path}: ${JSON.stringify(said)}`);
  return said.data;
}

async function send(number, machine, request) {
  const body = JSON.parse(request.body);
  const paths = {
    [RequestType.KeysUpload]: ["POST", "/v1/e2ee/keys/upload"],
    [RequestType.KeysQuery]: ["POST", "/v1/e2ee/keys/query"],
    [RequestType.KeysClaim]: ["POST", "/v1/e2ee/keys/claim"],
    [RequestType.SignatureUpload]: ["POST", "/v1/e2ee/signatures"],
    [RequestType.ToDevice]: ["PUT", `/v1/e2ee/to-device/${request.event_type}/${request.txn_id}`],
  };
  const [method, path] = paths[request.type];
  const isSigned = request.type === RequestType.SignatureUpload;
  const data = await ask(number, method, path, isSigned && !body.signatures ? { signatures: body } : body);
  if (request.id) await machine.markRequestAsSent(request.id, request.type, JSON.stringify(data));
}

async function settle(number, machine) {
  for (const request of await machine.outgoingRequests()) await send(number, machine, request);
}

async function sync(number, machine) {
  const since = people[number].since;
  const told = await ask(number, "GET", "/v1/e2ee/sync" + (since ? `?since=${since}` : ""));
  people[number].since = told.next_since;
  const users = (names) => names.map((name) => new UserId(name));
  const done = await machine.receiveSyncChanges(
    JSON.stringify(told.to_device),
    new DeviceLists(users(told.device_lists.changed), users(told.device_lists.left)),
    new Map(Object.entries(told.one_time_key_counts)),
    new Set(told.unused_fallback_keys),
    new DecryptionSettings(TrustRequirement.Untrusted),
  );
  await settle(number, machine);
  return done;
}

const names = people.map((each) => `@${each.user_id}:${server_name}`);
const machines = [];
for (const [number, each] of people.entries()) {
  const machine = await OlmMachine.initialize(new UserId(names[number]), new DeviceId(each.device_id));
  machines.push(machine);
  await settle(number, machine);
  await sync(number, machine);
  const boot = await machine.bootstrapCrossSigning(true);
  if (boot.uploadKeysRequest) await send(number, machine, boot.uploadKeysRequest);
  await ask(number, "POST", "/v1/e2ee/signing-keys", {
    password: each.password,
    ...JSON.parse(boot.uploadSigningKeysRequest.body),
  });
  await send(number, machine, boot.uploadSignaturesRequest);
}
const [ann, bob] = machines;
const room = new RoomId(`!room:${server_name}`);
await ann.updateTrackedUsers(names.map((name) => new UserId(name)));
await bob.updateTrackedUsers(names.map((name) => new UserId(name)));
await settle(0, ann);
await settle(1, bob);
const claim = await ann.getMissingSessions(names.map((name) => new UserId(name)));
if (claim) await send(0, ann, claim);
for (const request of await ann.shareRoomKey(room, names.map((name) => new UserId(name)), new EncryptionSettings()))
  await send(0, ann, request);
const content = await ann.encryptRoomEvent(room, "m.room.message", JSON.stringify({ msgtype: "m.text", body: "hello" }));
await sync(1, bob);
const event = { type: "m.room.encrypted", event_id: "$1", sender: names[0], origin_server_ts: 1, room_id: room.toString(), content: JSON.parse(content) };
const opened = await bob.decryptRoomEvent(JSON.stringify(event), room, new DecryptionSettings(TrustRequirement.CrossSigned));
const body = JSON.parse(opened.event).content.body;
await sync(1, bob);
const identity = await ann.getIdentity(new UserId(names[1]));
await send(0, ann, await identity.verify());
console.log(JSON.stringify({ server_name, people: people.map(({ user_id, device_id }) => ({ user_id, device_id })), body, exchanges }));
process.exit(0);
