"""Encrypted conversations as people see them: what is said, who is verified, and what a server could try."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import playwright.sync_api as playwright
import pytest
from playwright.sync_api import expect

from kit.people import PASSWORD, unique
from kit.server import Server

from .people import AWAY, People, Person

SECRET = "a word that nobody else knows: quartz-marmalade"
READY = "app.mine.secrecy.crypto().then((crypto) => crypto.ready())"


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose folder is looked through afterwards: nothing that was said may be in it."""
    folder: Path = tmp_path_factory.mktemp("quiet") / "data"
    server = Server(folder, RATE_LIMITS__ENABLED="false")
    server.start()
    yield server
    server.check()
    server.close()
    for path in folder.rglob("*"):
        assert not path.is_file() or b"marmalade" not in path.read_bytes(), path
    assert not [line for line in server.output if "marmalade" in line]


@pytest.fixture(scope="module")
def couple(browser: playwright.Browser, quiet: Server) -> Iterator[tuple[Person, Person]]:
    """Ann and Bob, whom most tests share: each with a conversation of its own."""
    people = People(browser)
    ann, bob = people.enter(quiet, "Ann", "Bob")
    for person in (ann, bob):
        person.at("/").is_online()
        person.finds(READY)
    yield ann, bob
    people.check()
    people.clear()


def sealed(one: Person, *others: Person, **more: object) -> tuple[str, str]:
    """An encrypted group of theirs: its id and its title."""
    title = unique("sealed")
    ids = [each.me.user_id for each in others]
    made = {"type": "group", "title": title, "participant_ids": ids, "is_e2ee_enabled": True}
    return str(one.me.ask("POST", "/v1/conversations", made | more)["conversation_id"]), title


def acts(person: Person, text: str, action: str) -> None:
    """Something of the menu of the message that holds this text."""
    message = person.messages(text).first
    message.hover()
    message.get_by_role("button", name="Actions").click()
    person.page.get_by_role("menuitem", name=action, exact=True).click()


def proves(person: Person, button: str) -> None:
    """With the password, in the dialog that asks for it."""
    dialog = person.page.get_by_role("dialog")
    dialog.get_by_label("Your password").fill(PASSWORD)
    dialog.get_by_role("button", name=button).click()


def indexed(person: Person, word: str) -> list[str]:
    """The texts that this browser finds."""
    searching = "app.mine.secrecy.crypto().then((crypto) => crypto.index.search(given[0]))"
    return [row["text"] for row in person.finds(searching, word)]


def test_two_people_compare_pictures_and_read_each_other(couple: tuple[Person, Person]) -> None:
    ann, bob = couple
    where, _ = sealed(ann, bob)
    for person in couple:
        person.goes("/settings/encryption")
        person.presses("Make an identity")
        proves(person, "Make an identity")
        person.is_told("This device is yours for sure")
    for person in couple:
        person.goes(f"/c/{where}")
    ann.writes(SECRET)
    bob.sees(SECRET)
    bob.writes(f"yes, {SECRET}")
    ann.sees(f"yes, {SECRET}")

    ann.page.get_by_role("link", name="Details").click()
    ann.page.get_by_role("list").get_by_role("button", name="Bob").first.click()
    ann.presses("Keys and verification")
    ann.presses("Verify")
    bob.presses("Compare")
    pictures = []
    for person in couple:
        items = person.page.get_by_role("dialog", name="Verify").get_by_role("listitem")
        expect(items).to_have_count(7)
        pictures.append(items.all_inner_texts())
    assert pictures[0] == pictures[1]
    for person in couple:
        person.presses("They are the same")
    for person in couple:
        person.is_told("Verified: nobody stands between you")
    ann.comes_to(f"(await (await app.mine.secrecy.crypto()).trust('{bob.me.user_id}')) === 'verified'")
    assert all("marmalade" not in said for said in ann.me.said(where))


def test_what_is_said_is_said_otherwise_and_elsewhere(couple: tuple[Person, Person]) -> None:
    """Edited, answered, forwarded, found, deleted: and nothing of it in the clear."""
    ann, bob = couple
    where, title = sealed(ann, bob)
    elsewhere, other = sealed(ann, bob)
    for person in couple:
        person.goes("/")
        person.opens(title)
    ann.writes(f"early {SECRET}")
    bob.sees(f"early {SECRET}")
    assert indexed(bob, "early marmalade") == [f"early {SECRET}"]
    acts(ann, "early", "Edit")
    ann.writes(f"later {SECRET}")
    bob.sees_once(f"later {SECRET}")
    expect(bob.messages("later")).to_contain_text("edited")
    acts(bob, "later", "What it said before")
    before = bob.page.get_by_role("dialog")
    expect(before).to_contain_text(f"early {SECRET}")
    before.get_by_role("button", name="Close").click()
    acts(bob, "later", "Answer")
    bob.writes("so be it, marmalade")
    expect(ann.messages("so be it")).to_contain_text(f"later {SECRET}")
    acts(ann, "so be it", "Forward")
    dialog = ann.page.get_by_role("dialog")
    dialog.get_by_role("checkbox", name=other).check()
    dialog.get_by_role("button", name="Forward").click()
    ann.is_told("Forwarded to 1 conversation.")
    ann.has_sent()
    bob.goes(f"/c/{elsewhere}")
    bob.sees_once("so be it, marmalade")
    assert bob.waits(lambda: indexed(bob, "so be it") == ["so be it, marmalade"] * 2)

    # the page ends before it has written down what was said otherwise: it is found by that all the same, for
    # it is told again, when the page that looks for it has begun to
    bob.finds(
        """app.mine.secrecy.crypto().then((crypto) => void (crypto.index.add = (where, id, text) =>
          new Promise(() => (window.lost = text))))"""
    )
    acts(ann, "later", "Edit")
    ann.writes(f"later still {SECRET}")
    bob.comes_to("window.lost?.startsWith('later still')")
    bob.finds("app.mine.writer.flush()")
    bob.at("/search?q=later+still+mar")
    hit = bob.page.get_by_role("list", name="Messages").get_by_role("link")
    expect(hit).to_have_count(1)
    expect(hit).to_contain_text(f"later still {SECRET}")
    assert indexed(bob, "early") == []
    hit.click()
    bob.sees(f"later still {SECRET}")
    acts(ann, f"later still {SECRET}", "Delete")
    ann.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    bob.is_told("deleted")
    assert bob.waits(lambda: indexed(bob, "later mar") == [])
    # and in what one is in no more, nothing is
    ann.me.ask("DELETE", f"/v1/conversations/{elsewhere}/participants/{bob.me.user_id}")
    assert bob.waits(lambda: indexed(bob, "so be it") == ["so be it, marmalade"])  # where it was said first
    for each in (where, elsewhere):
        assert not [said for said in ann.me.said(each) if "marmalade" in said]


def test_what_a_server_could_try(couple: tuple[Person, Person]) -> None:
    ann, bob = couple
    where, title = sealed(ann, bob)
    for person in couple:
        person.goes("/")
        person.opens(title)
    ann.writes(SECRET)
    bob.sees(SECRET)

    # it is not encrypted any more, says the server, before and after the page is loaded anew
    def lie(route: playwright.Route) -> None:
        answer = route.fetch()
        route.fulfill(
            response=answer, body=answer.text().replace('"is_e2ee_enabled":true', '"is_e2ee_enabled":false')
        )

    ann.context.route("**/v1/conversations**", lie)
    for text in ("first marmalade", "second marmalade"):
        ann.finds("app.mine.sync.conversation(given[0])", where)
        ann.writes(text)
        bob.sees(text)
        ann.finds("app.mine.writer.flush()")
        ann.finds("app.mine.disk.delete('conversations', given[0])", where)
        ann.at(f"/c/{where}").sees(SECRET)
    ann.context.unroute("**/v1/conversations**")
    assert not [said for said in ann.me.said(where) if "marmalade" in said]

    # it puts in what nobody has sealed; and a file beside what somebody has
    bob.finds(
        """(() => {
          const timeline = app.state.timeline(given[0]);
          const last = timeline.messages.peek().at(-1);
          timeline.put({ ...last, file_ids: ["a-file-of-the-server"], change: last.change + 1 });
          const { seq, message_id, client_message_id } = last;
          const ids = { message_id: message_id + "0", client_message_id: client_message_id + "0" };
          const plain = { seq: seq + 1, content: "come alone", is_encrypted: false, file_ids: [] };
          timeline.put({ ...last, ...ids, ...plain });
        })()""",
        where,
    )
    bob.sees("come alone")
    expect(bob.messages("come alone")).to_contain_text("Not encrypted")
    expect(bob.messages("second")).not_to_contain_text("Not encrypted")
    expect(bob.messages("second").get_by_role("button", name="Download")).to_have_count(0)


def test_keys_that_come_late(couple: tuple[Person, Person]) -> None:
    """What they open is shown, and found; what disappears is not kept to be found."""
    ann, bob = couple
    where, title = sealed(ann, bob)
    ann.me.ask("PUT", f"/v1/conversations/{where}/settings", {"disappear_after_s": 3_600})
    bob.context.route("**/v1/e2ee/sync**", lambda route: route.abort())
    bob.excuses(r"ERR_FAILED")
    for person in couple:
        person.goes("/")
        person.opens(title)
    ann.writes("late marmalade, for an hour")
    bob.is_told("its key is still to come")
    bob.context.unroute("**/v1/e2ee/sync**")
    bob.sees("late marmalade, for an hour")
    ann.me.ask("PUT", f"/v1/conversations/{where}/settings", {"disappear_after_s": 0})
    ann.writes("late marmalade, for good")
    bob.sees("late marmalade, for good")
    assert bob.waits(lambda: indexed(bob, "late marmalade") == ["late marmalade, for good"])


def test_what_is_deleted_while_it_is_opened_is_not_found(couple: tuple[Person, Person]) -> None:
    ann, bob = couple
    where, _ = sealed(ann, bob)
    for person in couple:
        person.goes(f"/c/{where}")
    bob.finds(
        """app.mine.secrecy.crypto().then((crypto) => {
          const { decrypt } = crypto;
          const free = new Promise((resolve) => (window.open = resolve));
          crypto.decrypt = async (message) => {
            window.isOpening = true;
            await free;
            crypto.decrypt = decrypt;
            const answer = await decrypt.call(crypto, message);
            window.isOpened = true;
            return answer;
          };
        })"""
    )
    ann.writes("never said, marmalade")
    bob.comes_to("window.isOpening")
    message = ann.me.ask("GET", "/v1/messages", conversation_id=where)["messages"][-1]["message_id"]
    ann.me.ask("DELETE", f"/v1/messages/{message}")
    bob.is_told("deleted")
    bob.finds("window.open()")
    bob.comes_to("window.isOpened")
    assert indexed(bob, "never said") == []


def test_who_joins_is_told_what_was_before(couple: tuple[Person, Person]) -> None:
    """Where the past is open to whoever joins: nobody gives them its keys."""
    ann, bob = couple
    where, _ = sealed(ann)
    ann.me.ask("PUT", f"/v1/conversations/{where}/settings", {"history_visible": True})
    ann.goes(f"/c/{where}")
    ann.writes("to myself, marmalade")
    ann.has_sent()
    ann.me.ask("POST", f"/v1/conversations/{where}/participants", {"user_id": bob.me.user_id})
    bob.comes_to("app.state.conversations.peek(given[0]) !== undefined", where)
    bob.goes(f"/c/{where}")
    bob.is_told("or before you joined")


def test_who_comes_while_nobody_looks_reads_what_follows(
    couple: tuple[Person, Person], people: People, quiet: Server
) -> None:
    """And is told of, as is who has no keys yet."""
    ann, bob = couple
    (cid,) = people.enter(quiet, "Cid")
    where, title = sealed(ann, bob)
    ann.goes("/")
    ann.opens(title)
    ann.writes("among two, marmalade")
    ann.has_sent()
    ann.me.ask("POST", f"/v1/conversations/{where}/participants", {"user_id": cid.me.user_id})
    ann.is_told("New here: Cid.")
    ann.is_told("Cid has no keys yet")
    cid.at("/").is_online()
    cid.finds(READY)
    expect(ann.page.get_by_text("Cid has no keys yet")).to_have_count(0)
    # the page of Ann has not heard of it, as after a long time without a network
    ann.finds(
        """(app.state.conversations.change(given[0], (held) => ({ ...held,
          participants: held.participants.filter((each) => each.user_id !== given[1]) })),
          app.mine.socket.close(), app.mine.socket.open())""",
        where,
        cid.me.user_id,
    )
    ann.is_online()
    ann.writes("among three, marmalade")
    cid.opens(title)
    cid.sees("among three, marmalade")


def test_keys_that_are_lost(people: People, quiet: Server) -> None:
    """The browser becomes another device; what was written meanwhile is not lost."""
    ann, bob = people.enter(quiet, "Ann", "Bob")
    where, title = sealed(ann, bob)
    for person in (ann, bob):
        person.at("/").opens(title)
        person.finds(READY)
    before = bob.finds("app.session.tokens.peek().device_id")
    bob.excuses("409", AWAY)
    bob.page.goto("/livez")
    bob.page.evaluate(
        """async () => {
          for (const { name } of await indexedDB.databases())
            if (name.startsWith("sc-keys:"))
              await new Promise((resolve) => (indexedDB.deleteDatabase(name).onsuccess = resolve));
        }"""
    )
    bob.at(f"/c/{where}")
    bob.is_told("This browser has lost its keys")
    bob.writes("wait for me, marmalade")
    bob.presses("What to do")
    proves(bob, "Make this a new device")
    ann.sees("wait for me, marmalade")
    bob.comes_to("app.session.tokens.peek().device_id !== given[0] && app.account.peek() !== null", before)
    expect(bob.page.get_by_text("This browser has lost its keys")).to_have_count(0)
    ann.writes("here I am, marmalade")
    bob.sees("here I am, marmalade")
    sessions = bob.finds("app.client.ask('GET', '/v1/auth/sessions')")["sessions"]
    assert before not in [session["device_id"] for session in sessions]


def test_what_is_said_before_somebody_has_keys_waits_for_them(people: People, quiet: Server) -> None:
    """And signing out takes the keys away: the next device is another one."""
    ann, bob = people.enter(quiet, "Ann", "Bob")
    made = {"type": "direct", "participant_ids": [bob.me.user_id], "is_e2ee_enabled": True}
    where = ann.me.ask("POST", "/v1/conversations", made)["conversation_id"]
    ann.at(f"/c/{where}").is_online()
    ann.writes(SECRET)
    ann.finds(READY)
    ann.is_told("What you write waits until then.")
    ann.comes_to("app.mine.outbox.entries.peek().length === 1")
    assert ann.me.said(where) == []
    bob.at(f"/c/{where}")
    bob.sees(SECRET)
    ann.has_sent()

    before = bob.finds("app.session.tokens.peek().device_id")
    bob.finds("app.session.signOut()")
    bob.comes_to("(await indexedDB.databases()).length === 0")
    asked = "app.session.signIn({ name: given[0], password: given[1] })"
    bob.finds(asked, bob.me.username, PASSWORD)
    bob.comes_to("app.account.peek() !== null && app.session.tokens.peek().device_id !== given[0]", before)
    bob.finds(READY)
    bob.goes(f"/c/{where}")
    bob.is_told("from before this device")
    devices = "(await (await app.mine.secrecy.crypto()).devices(given[0]))"
    ann.comes_to(f"{devices}.every((each) => each.deviceId !== given[1])", bob.me.user_id, before)
    ann.writes("once more")
    bob.sees("once more")
