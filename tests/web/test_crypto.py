"""The encryption of the web client: real devices in Chromium, at a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import playwright.sync_api as playwright
import pytest
import vodozemac as olm

from kit.olm import OlmDevice
from kit.people import PASSWORD
from kit.server import Server

from .devices import (
    MISSING,
    Cast,
    Device,
    Person,
    Room,
    believed,
    compare,
    flow,
    identify,
    post,
    profile,
    read,
    reads,
    refused,
    trust,
    verify,
)
from .people import Account

SECRET = "the-quickest-brownish-fox-meets-at-nine"


@pytest.fixture(scope="module")
def context(browser: playwright.Browser) -> Iterator[playwright.BrowserContext]:
    context = profile(browser)
    yield context
    context.close()


@pytest.fixture
def cast(context: playwright.BrowserContext, server: Server) -> Iterator[Cast]:
    cast = Cast(context, server)
    yield cast
    cast.leave()


@pytest.fixture(scope="module")
def pair(context: playwright.BrowserContext, shared_server: Server) -> Iterator[list[Person]]:
    """Ann and Bob, whom most tests share: each makes rooms of its own."""
    cast = Cast(context, shared_server)
    yield cast.enter("ann", "bob")
    cast.leave()


def test_two_people_and_four_devices(pair: list[Person], server: Server) -> None:
    ann, bob = pair
    tablet, laptop = ann.another(), bob.another()
    room = Room(ann, bob)
    tabs: list[Device] = [ann.device, tablet, bob.device, laptop]
    for tab in tabs:
        for other in tabs:
            tab.do("device.crypto.look(given[0])", other.user)
    message = room.says(ann.device, SECRET)
    assert [reads(tab, message) for tab in tabs] == [SECRET] * 4
    answer = room.says(laptop, SECRET[::-1])
    assert [reads(tab, answer) for tab in tabs] == [SECRET[::-1]] * 4

    # nothing of it lies at the server; the same search finds what was written in the clear
    plain = post(ann.device, "/v1/conversations", {"type": "group", "title": "open", "participant_ids": []})
    said = {"conversation_id": plain["conversation_id"], "content": "this-everybody-may-read"}
    post(ann.device, "/v1/messages", said)
    stored = b"".join(path.read_bytes() for path in server.data_dir.rglob("*") if path.is_file())
    assert said["content"].encode() in stored
    assert not [word for word in (SECRET, SECRET[::-1], *SECRET.split("-")[1:3]) if word.encode() in stored]


def test_who_is_removed_reads_on_no_more(pair: list[Person], cast: Cast) -> None:
    (ann, bob), (cid,) = pair, cast.enter("cid")
    room = Room(ann, bob, cid)
    before = room.says(ann.device, "with cid")
    assert [reads(each.device, before) for each in (bob, cid)] == ["with cid"] * 2
    path = f"/v1/conversations/{room.id}/participants/{cid.id}"
    ann.device.do(
        """void (device.left = Promise.all(
          ["user_left", "key_changed"].map((type) => new Promise((heard) => device.listen(type, heard)))))"""
    )
    ann.device.do("device.ask('DELETE', given[0])", path)
    ann.device.do("device.left")  # whichever comes later ends the session of what was said meanwhile
    room.members.remove(cid.id)
    after = room.says(ann.device, "without")
    assert reads(bob.device, after) == "without"
    sealed = bob.device.do("device.ask('GET', given[0])", f"/v1/messages/{after}")
    assert cid.device.do("device.crypto.decrypt(given[0]).then((it) => it.reason)", sealed) == MISSING
    sessions = [
        json.loads(bob.device.do("device.ask('GET', given[0])", f"/v1/messages/{each}")["content"])[
            "session_id"
        ]
        for each in (before, after)
    ]
    assert sessions[0] != sessions[1]

    # and who comes later does not read what was
    post(ann.device, f"/v1/conversations/{room.id}/participants", {"user_id": cid.id})
    room.members.append(cid.id)
    again = room.says(ann.device, "cid is back")
    assert reads(cid.device, again) == "cid is back"
    assert cid.device.do("device.crypto.decrypt(given[0]).then((it) => it.reason)", sealed) == "before_you"


def test_a_key_that_comes_late_fills_in(pair: list[Person]) -> None:
    ann, bob = pair
    room = Room(ann, bob)
    bob.device.do("(device.refused = '/v1/e2ee/sync')")
    message = room.says(ann.device, "hello")
    assert read(bob.device, message) == MISSING
    bob.device.do("((device.refused = null), device.tell({ type: 'online' }))")
    hers = "({ message }) => message.message_id === given[0]"  # other tests' messages may have waited, too
    told = bob.device.wait(f"device.last('decrypted', {hers})", message)
    assert told["opened"]["payload"]["body"] == "hello"


def test_a_reload_and_two_tabs(pair: list[Person], cast: Cast) -> None:
    (ann,), (bob, _) = cast.enter("ann"), pair
    room = Room(ann, bob)
    first = ann.device
    fingerprint = "device.crypto.devices(device.user).then(([mine]) => mine.fingerprint)"
    before = first.do(fingerprint)
    message = room.says(first, "before")
    first.load()
    first.open()
    assert read(first, message) == "before"
    second = first.tab()
    second.open()
    assert (first.do("device.crypto.isLeader"), second.do("device.crypto.isLeader")) == (True, False)
    assert read(second, message) == "before"
    other = room.says(second, "from the other tab")
    assert read(first, other) == "from the other tab"
    assert reads(bob.device, other) == "from the other tab"

    # the leading tab dies when the key of a new session is with the server, and nothing is sealed with it
    # yet: the next tab seals what was asked
    elsewhere = Room(ann, bob)
    first.do("""(device.tamper = (path, data) => {
      if (!path.includes('/to-device/m.room.encrypted/')) return data;
      document.title = 'shared';
      return new Promise(() => {});
    })""")
    second.do("void (window.saying = device.say(...given))", elsewhere.id, elsewhere.members, "of the dead")
    first.wait("document.title === 'shared'")
    first.page.close()
    second.wait("device.crypto.isLeader")
    assert reads(bob.device, second.do("saying")) == "of the dead"
    assert read(second, message) == "before"
    assert second.do(fingerprint) == before


def test_a_browser_without_locks(pair: list[Person]) -> None:
    """Two of its tabs would write to one store."""
    ann, _ = pair
    tab = ann.device.tab()
    tab.do("Object.defineProperty(navigator, 'locks', { value: undefined })")
    assert refused(tab, "device.open(given[0])", f"{tab.folder}/index.js") == "LOCKS_MISSING"
    tab.page.close()


def test_keys_that_are_lost(pair: list[Person]) -> None:
    """Those of a device that has published them: it says so, once, and asks no more."""
    bob = pair[1].another()
    bob.do("device.crypto.erase()")
    bob.load()
    assert refused(bob, "device.open(given[0])", f"{bob.folder}/index.js") == "KEYS_LOST"
    assert bob.wait("device.last('failed')")["code"] == "KEYS_LOST"
    encrypt = "device.crypto.encrypt(given[0], [], { id: '1', body: 'x' })"
    assert refused(bob, encrypt, Room(pair[1]).id) == "KEYS_LOST"
    assert bob.do("device.asked.filter(([path]) => path.endsWith('/keys/upload')).length") == 1
    bob.do("device.crypto.close()")


def test_keys_for_one_use_run_out(pair: list[Person], server: Server) -> None:
    """Who drains them keeps nobody from writing: there is a key for when none is left."""
    ann, bob = pair
    tablet = bob.another()
    device = tablet.do("device.deviceId")
    tablet.do("(device.refused = '/v1/e2ee/')")  # it does not see, and brings no others
    thief = Account(server, "thief")
    Room(ann, bob)
    made = {"type": "group", "title": "x", "participant_ids": [bob.id], "is_e2ee_enabled": True}
    thief.ask("POST", "/v1/conversations", made)
    name = f"@{bob.id}:{thief.ask('GET', '/v1/server')['server_name']}"
    asked = {"one_time_keys": {name: {device: "signed_curve25519"}}}
    for _ in range(60):
        claimed = thief.ask("POST", "/v1/e2ee/keys/claim", asked)["one_time_keys"]
        (key,) = claimed[name][device].values()
        if key.get("fallback"):
            break
    else:
        pytest.fail("there are more than 60")
    thief.close()
    room = Room(ann, bob)
    ann.device.do("device.crypto.look(given[0])", bob.id)
    ann.device.knows(tablet)
    message = room.says(ann.device, "still")
    tablet.do("((device.refused = null), device.tell({ type: 'online' }))")
    assert reads(tablet, message) == "still"
    tablet.wait("device.asked.some(([path, body]) => path.endsWith('/keys/upload') && body.one_time_keys)")


def test_a_forged_key_is_not_used(pair: list[Person], cast: Cast) -> None:
    """Should the server itself put another key in the place of one."""
    (ann, _), (bob,) = pair, cast.enter("bob")
    room = Room(ann, bob)
    forged = olm.Account().curve25519_key.to_base64()
    ann.device.do(
        """(device.tamper = (path, data) => {
          if (path.endsWith('/keys/claim'))
            for (const devices of Object.values(data.one_time_keys))
              for (const keys of Object.values(devices))
                for (const key of Object.values(keys)) key.key = given[0];
          return data;
        })""",
        forged,
    )
    message = room.says(ann.device, "not for the server")
    assert read(ann.device, message) == "not for the server"
    given = ann.device.do("device.asked.filter(([path]) => path.includes('/to-device/m.room.encrypted/'))")
    assert not [path for path, body in given if bob.id in json.dumps(body)]
    assert ann.device.do("device.asked.some(([path]) => path.includes('/to-device/m.room_key.withheld/'))")
    assert read(bob.device, message) == MISSING
    ann.device.do("(device.tamper = (path, data) => data)")


def test_a_message_is_believed_only_where_it_was_said(pair: list[Person]) -> None:
    """What the server could do with what it holds: show it as another's, in another place, twice."""
    ann, bob = pair
    room, elsewhere = Room(ann, bob), Room(ann, bob)
    message = room.says(ann.device, "yes")
    assert reads(bob.device, message) == "yes"
    sealed = bob.device.do("device.ask('GET', given[0])", f"/v1/messages/{message}")
    for lie in (
        {"sender_id": bob.id},
        {"conversation_id": elsewhere.id},
        {"client_message_id": "another"},
        {"client_message_id": None},
        {"content": sealed["content"].replace('"ciphertext":"A', '"ciphertext":"B')},
        {"content": "yes"},
    ):
        told = bob.device.do("device.crypto.decrypt(given[0])", sealed | lie)
        assert "payload" not in told, lie
        assert told["reason"] in ("broken", MISSING), lie


def test_a_device_of_another_make(pair: list[Person], server: Server) -> None:
    """vodozemac in Python reads what the browser writes, and is read."""
    ann, _ = pair
    account = Account(server, "bot")
    name = account.ask("GET", "/v1/server")["server_name"]
    bot = OlmDevice(account.user_id, account.session["device_id"], name)
    account.ask("POST", "/v1/e2ee/keys/upload", bot.upload())
    made = {"type": "group", "title": "x", "participant_ids": [ann.id], "is_e2ee_enabled": True}
    room = account.ask("POST", "/v1/conversations", made)["conversation_id"]
    members = [ann.id, account.user_id]
    message = ann.device.do("device.say(...given)", room, members, "hello bot")
    (shared,) = account.ask("GET", "/v1/e2ee/sync")["to_device"]
    key = bot.decrypt(shared["content"])["content"]
    assert (key["room_id"], key["algorithm"]) == (f"!{room}:{name}", "m.megolm.v1.aes-sha2")
    session = olm.InboundGroupSession(olm.SessionKey(key["session_key"]))
    content = json.loads(account.ask("GET", f"/v1/messages/{message}")["content"])
    plain = json.loads(session.decrypt(olm.MegolmMessage.from_base64(content["ciphertext"])).plaintext)
    assert (plain["content"]["v"], plain["content"]["body"]) == (1, "hello bot")
    account.close()


def test_files_are_sealed_in_parts(pair: list[Person]) -> None:
    ann, _ = pair
    ann.device.do(
        """Object.assign(window, {
          async again(size, change = (sealed) => sealed) {
            const plain = new Uint8Array(size);
            for (let at = 0; at < size; at += 65_536)
              crypto.getRandomValues(plain.subarray(at, Math.min(at + 65_536, size)));
            const hash = async (bytes) =>
              String(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
            const key = device.lib.newFileKey();
            const file = new device.lib.SealedFile(new Blob([plain]), key);
            const pieces = [];
            const step = 3_000_000;
            for (let at = 0; at < file.size; at += step) pieces.push(await file.slice(at, at + step));
            const sealed = new Blob(pieces);
            if (sealed.size !== file.size || file.size !== device.lib.sealedSize(size)) return "size";
            const changed = await change(sealed);
            const opened = await device.lib.openedFile(changed.stream(), key, "text/plain");
            return (await hash(await opened.arrayBuffer())) === (await hash(plain)) ? opened.type : "content";
          },
        })"""
    )
    part = 5_242_880
    for size in (0, 1, part, part + 1, 2 * part + 12_345):
        assert ann.device.do("again(given[0])", size) == "text/plain", size
    for change in (
        "new Blob([sealed.slice(0, 100), new Uint8Array([1]), sealed.slice(101)])",  # another byte
        f"sealed.slice(0, {part + 16})",  # without its end
        f"new Blob([sealed.slice({part + 16}), sealed.slice(0, {part + 16})])",  # in another order
    ):
        assert refused(ann.device, f"again({part + 1000}, (sealed) => {change})") == "FILE_SPOILT", change


def test_people_compare_pictures(cast: Cast) -> None:
    ann, bob = cast.enter("ann", "bob")
    room = Room(ann, bob)
    identify(ann.device, bob.device)
    assert ann.device.do("device.crypto.own()") == {"exists": True, "canSign": True, "isVerified": True}
    assert trust(ann.device, bob) == "unverified"  # and bob has not asked for ann's keys yet

    # they differ: somebody stands between
    flow_id = compare(ann.device, bob.device, bob.id)
    bob.device.do("device.crypto.verification.cancel(given[0], true)", flow_id)
    told = [flow(each.device, flow_id, "cancelled")["cancelled"] for each in (ann, bob)]
    assert told == [
        {"code": "m.mismatched_sas", "byUs": False},
        {"code": "m.mismatched_sas", "byUs": True},
    ]
    assert trust(ann.device, bob) == "unverified"

    # one does not want to, in another tab of theirs; it takes too long
    tab = bob.device.tab()
    tab.open()
    flow_id = ann.device.do("device.crypto.verification.begin(given[0])", bob.id)["flowId"]
    for each in (bob.device, tab):
        flow(each, flow_id, "requested")
    tab.do("device.crypto.verification.cancel(given[0])", flow_id)
    for each in (ann.device, bob.device, tab):
        assert flow(each, flow_id, "cancelled")["cancelled"]["code"] == "m.user"
    tab.page.close()
    ann.device.do("""(window.later = setTimeout,
      window.setTimeout = (run, ms) => later(run, ms > 300_000 ? 500 : ms))""")  # ten minutes in no time
    flow_id = ann.device.do("device.crypto.verification.begin(given[0])", bob.id)["flowId"]
    assert flow(ann.device, flow_id, "cancelled")["cancelled"] == {"code": "m.timeout", "byUs": True}
    ann.device.do("(window.setTimeout = later)")
    flow(bob.device, flow_id, "cancelled")

    verify(ann.device, bob.device, bob.id)
    assert (trust(ann.device, bob), trust(bob.device, ann)) == ("verified", "verified")
    message = room.says(ann.device, "it is me")
    assert reads(bob.device, message) == "it is me"
    sealed = bob.device.do("device.ask('GET', given[0])", f"/v1/messages/{message}")
    opened = bob.device.do("device.crypto.decrypt(given[0])", sealed)
    assert (opened["trust"], opened["device"]) == ("verified", ann.device.do("device.deviceId"))

    # a device that bob has not signed gets nothing from ann, until he has
    ghost = bob.another()
    ann.device.knows(ghost)
    hidden = room.says(ann.device, "for bob alone")
    assert (reads(bob.device, hidden), reads(ghost, hidden)) == ("for bob alone", "withheld")
    ann.device.do("device.crypto.setStrict(false)")
    shown = room.says(ann.device, "for all")
    assert ghost.wait("(await device.read(given[0])) === 'for all'", shown)
    ann.device.do("device.crypto.setStrict(true)")
    # and what it says itself is not taken for his
    foreign = room.says(ghost, "give me the key of the house")
    assert reads(ann.device, foreign) == "give me the key of the house"
    assert believed(ann.device, foreign) == "unsigned"
    # nor does one that he has signed, when the server keeps the signature back
    ann.device.do(
        """(device.tamper = (path, data) => {
          if (path.endsWith('/keys/query'))
            for (const devices of Object.values(data.device_keys))
              for (const { signatures } of Object.values(devices))
                for (const made of Object.values(signatures))
                  for (const key of Object.keys(made)) if (!key.endsWith(given[0])) delete made[key];
          return data;
        })""",
        bob.device.do("device.deviceId"),
    )
    ann.device.do("device.crypto.look(given[0])", bob.id)
    unsigned = room.says(ann.device, "not for a device without a name")
    assert reads(bob.device, unsigned) == "withheld"
    ann.device.do("(device.tamper = (path, data) => data)")
    assert trust(ann.device, bob) == "verified"
    kept = room.says(ann.device, "it was he")  # of the same session, whose key comes after all
    assert bob.device.wait("(await device.read(given[0])) === 'it was he'", kept)

    # bob begins anew: ann is told, and sends nothing before she has agreed
    bob.device.do("device.crypto.bootstrap({ password: given[0], reset: true })", PASSWORD)
    ann.device.wait("(await device.crypto.trust(given[0])) === 'changed'", bob.id)
    bob.device.do("device.crypto.approve(given[0])", ann.id)
    strange = room.says(bob.device, "who am I?")
    assert reads(ann.device, strange) == "who am I?"
    assert believed(ann.device, strange) == "changed"
    said = "device.crypto.encrypt(given[0], given[1], { id: '1', body: 'secret' })"
    assert refused(ann.device, said, room.id, room.members) == "IDENTITY_CHANGED"
    ann.device.do("device.crypto.approve(given[0])", bob.id)
    assert trust(ann.device, bob) == "unverified"
    assert reads(bob.device, room.says(ann.device, "so be it")) == "so be it"


def test_whichever_device_answers(pair: list[Person]) -> None:
    """Of those that were asked: the one who asked sees one comparison."""
    ann, bob = pair
    Room(ann, bob)
    tablet = bob.another()
    ann.device.do("device.crypto.look(given[0])", bob.id)
    ann.device.knows(tablet)
    begun = ann.device.do("device.crypto.verification.begin(given[0])", bob.id)["flowId"]
    asked = tablet.wait("device.last('verification', ({ phase }) => phase === 'requested')")
    tablet.do("device.crypto.verification.accept(given[0])", asked["flowId"])
    there = flow(tablet, asked["flowId"], "compare")
    here = flow(ann.device, begun, "compare")
    assert flow(bob.device, begun, "cancelled")["cancelled"]["code"] == "m.accepted"
    assert here["emojis"] == there["emojis"]
    assert here["deviceId"] == tablet.do("device.deviceId")
    ann.device.do("device.crypto.verification.cancel(given[0])", begun)
    flow(tablet, asked["flowId"], "cancelled")
    assert ann.device.do("device.crypto.verification.list()") == []

    # one of them does not want to
    begun = ann.device.do("device.crypto.verification.begin(given[0])", bob.id)["flowId"]
    for each in (tablet, bob.device):
        flow(each, begun, "requested")
    tablet.do("device.crypto.verification.cancel(given[0])", begun)
    for each in (ann.device, bob.device):
        flow(each, begun, "cancelled")


def test_a_new_device_of_ones_own(cast: Cast) -> None:
    """It is verified by the one there is, and gets the keys of the past by the backup."""
    (ann,) = cast.enter("ann")
    room = Room(ann)
    identify(ann.device)
    message = room.says(ann.device, "of old")
    assert ann.device.do("device.crypto.isBackedUp()") is False
    key = ann.device.do("device.crypto.backup.create()")
    ann.device.wait("await device.crypto.isBackedUp()")

    tablet = ann.another()
    assert reads(tablet, message) == "before_you"
    assert refused(tablet, "device.crypto.bootstrap({ password: given[0] })", PASSWORD) == "IDENTITY_EXISTS"
    ann.device.knows(tablet)
    verify(tablet, ann.device, ann.id)
    tablet.wait("((own) => own.canSign && own.isVerified)(await device.crypto.own())")
    told = tablet.wait("device.last('decrypted')")
    assert told["opened"]["payload"]["body"] == "of old"
    assert tablet.do("device.crypto.backup.state()")["isEnabled"]

    # and without any other device, by the recovery key
    laptop = ann.another()
    assert reads(laptop, message) == "before_you"
    for wrong in ("", "abcd", key[:-1], key.replace(key[10], "1" if key[10] != "1" else "2", 1)):
        assert refused(laptop, "device.crypto.backup.restore(given[0])", wrong) == "RECOVERY_KEY_WRONG"
    assert laptop.do("device.crypto.backup.restore(given[0])", f" {key}\n")["imported"] >= 1
    assert read(laptop, message) == "of old"
    later = room.says(laptop, "of now")
    laptop.wait("await device.crypto.isBackedUp()")
    assert read(laptop, later) == "of now"

    # a key that has come to another device alone is asked of the backup
    laptop.do("(device.tamper = (path, data) => path.includes('/sync') ? { ...data, to_device: [] } : data)")
    other = Room(ann).says(ann.device, "by the backup")
    ann.device.wait("await device.crypto.isBackedUp()")
    assert read(laptop, other) == MISSING
    laptop.wait("device.last('decrypted', ({ opened }) => opened.payload.body === 'by the backup')")
    laptop.do("(device.tamper = (path, data) => data)")

    # it is begun anew elsewhere: the old key opens it no more; and deleted elsewhere: nothing is kept there
    fresh = ann.device.do("device.crypto.backup.create()")
    restore = "device.crypto.backup.restore(given[0])"
    assert refused(laptop, restore, key) == "RECOVERY_KEY_WRONG"
    laptop.do(restore, fresh)
    laptop.wait("await device.crypto.isBackedUp()")
    ann.device.do("device.crypto.backup.remove()")
    assert laptop.do("device.crypto.isBackedUp()") is False
    assert refused(laptop, restore, fresh) == "NO_BACKUP"


def test_what_is_sealed_for_one_device(pair: list[Person]) -> None:
    """As descriptions of calls are."""
    ann, bob = pair
    Room(ann, bob)
    device = bob.device.do("device.deviceId")
    offer = {"call_id": "1", "sdp": "v=0" * 2_000}
    sealed = ann.device.do("device.crypto.seal(given[0], given[1], 'offer', given[2])", bob.id, device, offer)
    assert "v=0" not in json.dumps(sealed)
    opened = bob.device.do("device.crypto.unseal(given[0], given[1])", ann.id, sealed)
    mine = ann.device.do("device.deviceId")
    assert opened == {"type": "offer", "content": offer, "device": mine, "trust": "unverified"}
    unseal = "device.crypto.unseal(given[0], given[1])"
    assert refused(bob.device, unseal, ann.id, sealed) == "CANNOT_OPEN"  # once is enough
    another = ann.device.do(
        "device.crypto.seal(given[0], given[1], 'offer', given[2])", bob.id, device, offer
    )
    assert refused(bob.device, unseal, bob.id, another) == "CANNOT_OPEN"
    seal = "device.crypto.seal(given[0], given[1], 'offer', {})"
    assert refused(ann.device, seal, bob.id, mine) == "NO_DEVICE"


def test_the_module_breaks_and_is_loaded_again(pair: list[Person]) -> None:
    ann, _ = pair
    room = Room(ann)
    message = room.says(ann.device, "before")
    code = ann.device.do(
        """(async () => {
          const { Machine } = await import(given[0]);
          const { ask, user, deviceId, serverName } = device;
          const account = { ask: ask.bind(device), user, deviceId, serverName, storeName: "sc-other" };
          const machine = await Machine.open(account, () => {});
          // without a key that was shared the library panics
          return refusal(machine.run((olm) => olm.encryptRoomEvent(machine.roomId(given[1]), "m.x", "{}")));
        })()""",
        f"{ann.device.folder}/machine.js",
        room.id,
    )
    assert code == "CRYPTO_BROKEN"
    assert ann.device.wait("device.last('restarted')") == {"times": 1}
    assert read(ann.device, message) == "before"
    assert read(ann.device, room.says(ann.device, "after")) == "after"
    ann.device.errors.clear()  # the panic's own words


def test_search_in_what_is_sealed(cast: Cast) -> None:
    (ann,) = cast.enter("ann")
    add = "device.crypto.index.add(given[0], given[1], given[2], given[3])"
    for number, text in enumerate(
        ("Hẹn gặp ở Đà Nẵng nhé", "Nothing of the KIND", "kinder than that", "今日は会議", "gone")
    ):
        ann.device.do(add, f"room-{number % 2}", f"{number}", text, 1_000)
    ann.device.do("device.crypto.index.remove('4')")

    def found(question: str, room: str | None = None) -> list[str]:
        rows = ann.device.do("device.crypto.index.search(given[0], given[1])", question, room)
        return [row["message_id"] for row in rows]

    assert found("da nang") == found("ĐÀ NẴNG") == found("gặp nẵ") == ["0"]
    assert found("kind") == ["2", "1"]
    assert found("kind", "room-0") == ["2"]
    assert found("kind gone") == found("kin thing") == []
    assert found("会議") == ["3"]
    assert found("gone") == found("") == []
    # whichever version is opened last: the later one counts; and who asks at once finds what was added before
    ann.device.do(add, "room-0", "2", "kinder words", 2_000)
    ann.device.do(add, "room-0", "2", "kinder than before", 1_500)
    assert (found("kinder words"), found("before")) == (["2"], [])
    ann.device.do("device.crypto.index.leave('room-1')")
    assert found("kind") == ["2"]
    at_once = """Promise.all([
      device.crypto.index.add("room-1", "1", "Nothing of the KIND", 1_000),
      device.crypto.index.search("nothing"),
    ]).then(([, rows]) => rows.length)"""
    assert ann.device.do(at_once) == 1
    kept = ann.device.do(
        """(async () => {
          const open = indexedDB.open(given[0]);
          await new Promise((resolve) => (open.onsuccess = resolve));
          const rows = open.result.transaction("messages").objectStore("messages").getAll();
          await new Promise((resolve) => (rows.onsuccess = resolve));
          open.result.close();
          return rows.result.map((row) =>
            [...row.words, row.sealed].map((bytes) => new TextDecoder().decode(bytes)).join());
        })()""",
        next(name for name in ann.device.leaves() if name.endswith(":search")),
    )
    assert len(kept) == 3
    assert not [text for text in kept if "kind" in text.lower() or "nang" in text]

    # signing out leaves nothing
    ann.device.do("device.crypto.erase()")
    assert ann.device.leaves() == []
