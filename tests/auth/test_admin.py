"""Administration: who may sign in and as what, what is reported, what is told to all; on both databases."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import pyotp
import trio

from secureconnect.audit import Asked
from secureconnect.auth import ROUTES, Shown
from secureconnect.auth.admin import standing
from secureconnect.auth.admin.store import Ban
from secureconnect.auth.announcements.store import Announcement
from secureconnect.clock import to_iso
from secureconnect.edge import Audience
from secureconnect.errors import NotFound, Problem
from secureconnect.identity import ConversationId, MessageId, UserId, new_id

from .harness import CHEAP, PASSWORD, Node, Person, Site, refused

ADMIN = "/v1/admin"


async def admin_of(node: Node, name: str = "root") -> Person:
    """An administrator, signed in."""
    person = await node.register(name)
    await node.db.write(standing.set_role, CHEAP, UserId(person.user_id), "admin", None, node.db.now_us())
    return await node.login(name)


def later(node: Node, seconds: float) -> str:
    return to_iso(node.db.now_us() + int(seconds * 1_000_000))


async def ban(node: Node, admin: Person, who: Person, status: int = 200, **terms: Any) -> Any:
    path = {"user_id": who.user_id}
    return await node.ask(f"POST {ADMIN}/users/{{user_id}}/ban", terms, as_=admin, path=path, status=status)


async def unban(node: Node, admin: Person, who: Person) -> None:
    await node.ask(f"POST {ADMIN}/users/{{user_id}}/unban", as_=admin, path={"user_id": who.user_id})


async def actions(node: Node) -> list[tuple[str, str | None, str | None]]:
    rows = await node.rows(
        "SELECT action, actor_id, subject FROM audit WHERE action LIKE 'admin:%' ORDER BY audit_id"
    )
    return [(action, actor, subject) for action, actor, subject in rows]


async def at_once(*acts: Callable[[], Awaitable[Any]]) -> list[str]:
    """`done`, or the code of the refusal, of each."""
    told = [""] * len(acts)

    async def run(number: int, act: Callable[[], Awaitable[Any]]) -> None:
        try:
            await act()
            told[number] = "done"
        except Problem as problem:
            told[number] = problem.code

    async with trio.open_nursery() as nursery:
        for number, act in enumerate(acts):
            nursery.start_soon(run, number, act)
    return told


# bans


async def test_a_ban_ends_everything_and_keeps_out(node: Node) -> None:
    admin, ann = await admin_of(node), await node.register("ann")
    phone = await node.login("ann")
    ticket = (await node.ask("POST /v1/auth/ws-ticket", as_=phone))["ticket"]
    until = later(node, 3_600)
    assert await ban(node, admin, ann, reason="spam", until=until) == {"status": "banned"}
    assert {ann.session_id, phone.session_id} <= set(node.closed)
    for session in (ann, phone):
        with refused("TOKEN_REVOKED"):
            await node.who(session)
        with refused("TOKEN_REVOKED"):
            await node.refresh(session)
    with refused("INVALID_TOKEN"):
        await node.room.redeem(ticket)
    with refused("ACCOUNT_BANNED", reason="spam", until=until):
        await node.login("ann")
    with refused("INVALID_CREDENTIALS"):  # nobody else learns of it
        await node.login("ann", "wrong password")
    assert (await actions(node))[-1] == ("admin:user:banned", admin.user_id, ann.user_id)


async def test_a_ban_ends_by_itself_and_by_an_administrator(node: Node) -> None:
    admin, ann, bob = await admin_of(node), await node.register("ann"), await node.register("bob")
    await ban(node, admin, ann, until=later(node, 60))
    await ban(node, admin, bob)
    node.db.forward(61)
    await node.login("ann")
    with refused("ACCOUNT_BANNED", reason="", until=None):
        await node.login("bob")
    await unban(node, await node.login("root"), bob)
    await node.login("bob")
    assert [action for action, _, _ in await actions(node)].count("admin:user:unbanned") == 1


async def test_other_nodes_know_at_their_next_look(site: Site) -> None:
    here, there = await site.node(), await site.node()
    admin, ann = await admin_of(here), await here.register("ann")
    await there.who(ann)
    await ban(here, admin, ann)
    await there.room.poll_once()
    assert ann.session_id in there.closed
    with refused("TOKEN_REVOKED"):
        await there.who(ann)
    with refused("ACCOUNT_BANNED"):
        await there.login("ann")


async def test_a_sign_in_on_its_way_does_not_slip_past_a_ban(node: Node) -> None:
    """Whichever comes first, no session lives on beside the ban."""
    admin, ann = await admin_of(node), await node.register("ann")
    told = await at_once(*[lambda: node.login("ann")] * 4, lambda: ban(node, admin, ann))
    assert set(told[:-1]) <= {"done", "ACCOUNT_BANNED"}
    assert told[-1] == "done"
    alive = await node.rows(
        f"SELECT COUNT(*) FROM sessions WHERE user_id = '{ann.user_id}' AND ended_at IS NULL"
    )
    assert alive == [(0,)]


async def test_nobody_bans_themselves_or_the_unknown_or_into_the_past(node: Node) -> None:
    admin = await admin_of(node)
    nobody = replace(admin, user_id=new_id())
    with refused("CONFLICT"):
        await ban(node, admin, admin)
    with refused("NOT_FOUND"):
        await ban(node, admin, nobody)
    ann = await node.register("ann")
    with refused("VALIDATION", field="until"):
        await ban(node, admin, ann, until=later(node, -1))
    for wrong in ("soon", "2030-01-01", "9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00Z"):
        with refused("VALIDATION", field="until"):
            await ban(node, admin, ann, until=wrong)
    await node.who(ann)


async def test_of_two_who_ban_each_other_one_stays(site: Site) -> None:
    here, there = await site.node(), await site.node()
    one, other = await admin_of(here, "one"), await admin_of(here, "other")
    told = await at_once(lambda: ban(here, one, other), lambda: ban(there, other, one))
    assert sorted(told) in (["LAST_ADMINISTRATOR", "done"], ["TOKEN_REVOKED", "done"])
    assert await here.rows("SELECT COUNT(*) FROM bans") == [(1,)]


async def test_an_account_is_deleted_at_once(node: Node) -> None:
    admin, ann, bob = await admin_of(node), await node.register("ann"), await node.register("bob")
    about = {"user_id": bob.user_id, "reason": "spam", "comment": "ann is my name"}
    await node.ask("POST /v1/reports", about, as_=ann, status=201)
    await ban(node, admin, ann, reason="her name is ann")
    what, path = f"DELETE {ADMIN}/users/{{user_id}}", {"user_id": ann.user_id}
    assert await node.ask(what, as_=admin, path=path) == {"status": "deleted"}
    with refused("INVALID_CREDENTIALS"):
        await node.login("ann")
    (left,) = await node.rows(f"SELECT email, display_name FROM users WHERE user_id = '{ann.user_id}'")
    assert left == ("", "deleted user")
    assert ann.session_id in node.closed
    assert await node.rows("SELECT 1 FROM users WHERE delete_at IS NOT NULL") == []
    listed = (await node.ask(f"GET {ADMIN}/users", as_=admin))["users"]
    assert {each["user"]["username"] for each in listed} == {"root", "bob"}
    assert (await node.ask(f"GET {ADMIN}/stats", as_=admin))["users"] == 2
    with refused("NOT_FOUND"):
        await node.ask("POST /v1/reports", {"user_id": ann.user_id, "reason": "spam"}, as_=bob)
    assert await node.rows("SELECT COUNT(*) FROM bans") == [(0,)]
    assert await node.rows("SELECT comment FROM reports") == [("",)]
    done = [each for each in await actions(node) if each[0] == "admin:user:deleted"]
    assert done == [("admin:user:deleted", admin.user_id, ann.user_id)]
    with refused("NOT_FOUND"):
        await node.ask(what, as_=admin, path=path)
    with refused("CONFLICT"):
        await node.ask(what, as_=admin, path={"user_id": admin.user_id})


async def test_the_last_administrator_stays_one(node: Node) -> None:
    admin, user = await admin_of(node), UserId((await node.register("ann")).user_id)
    root, now_us = UserId(admin.user_id), node.db.now_us()
    with refused("LAST_ADMINISTRATOR"):
        await node.db.write(standing.ban, CHEAP, root, Ban("", now_us, None, None), None, now_us)
    with refused("LAST_ADMINISTRATOR"):
        await node.db.write(standing.set_role, CHEAP, root, "user", None, now_us)
    with refused("LAST_ADMINISTRATOR"):
        await node.ask("DELETE /v1/users/me", {"password": PASSWORD}, as_=admin)
    await node.db.write(standing.set_role, CHEAP, user, "admin", None, now_us)
    await node.ask("DELETE /v1/users/me", {"password": PASSWORD}, as_=await node.login("ann"))
    with refused("LAST_ADMINISTRATOR"):  # one who leaves does not count
        await node.db.write(standing.set_role, CHEAP, root, "user", None, now_us)
    await node.ask("POST /v1/users/me/restore", as_=await node.login("ann"))
    await node.db.write(standing.set_role, CHEAP, root, "user", None, now_us)
    changed = [each for each in await actions(node) if each[0] == "admin:role:changed"]
    assert changed == [("admin:role:changed", None, who) for who in (root, user, root)]
    await node.room.poll_once()
    with refused("TOKEN_REVOKED"):  # wherever its role was remembered
        await node.who(admin)
    assert (await node.who(await node.login("root"))).role == "user"


async def test_of_the_last_two_who_delete_each_other_one_stays(site: Site) -> None:
    here, there = await site.node(), await site.node()
    one, other = await admin_of(here, "one"), await admin_of(here, "other")
    what = f"DELETE {ADMIN}/users/{{user_id}}"
    told = await at_once(
        lambda: here.ask(what, as_=one, path={"user_id": other.user_id}),
        lambda: there.ask(what, as_=other, path={"user_id": one.user_id}),
    )
    assert sorted(told) in (["LAST_ADMINISTRATOR", "done"], ["NOT_FOUND", "done"], ["TOKEN_REVOKED", "done"])
    assert await here.rows("SELECT COUNT(*) FROM users WHERE role = 'admin'") == [(1,)]


async def test_an_account_erased_by_another_node_is_deleted(site: Site) -> None:
    """Its time is over with the first transaction: another node's pass may be faster with the rest."""
    here, there = await site.node(), await site.node()
    admin, ann = await admin_of(here), await here.register("ann")
    forget = here.room.removal._erase

    async def late(user: UserId) -> None:
        await there.room.deletion.pass_once()
        await forget(user)

    here.room.removal._erase = late
    path = {"user_id": ann.user_id}
    await here.ask(f"DELETE {ADMIN}/users/{{user_id}}", as_=admin, path=path)
    rows = await here.rows("SELECT 1 FROM audit WHERE action = 'auth:user:erased'")
    assert len(rows) == 1


# letting in


async def test_who_has_failed_too_often_may_try_again(node: Node) -> None:
    admin, ann = await admin_of(node), await node.register("ann")
    device: dict[str, Any] = {"device_id": ann.device_id, "device_secret": ann.device_secret}
    for more in ({}, device):
        for _ in range(CHEAP.lockout_failures):
            with refused("INVALID_CREDENTIALS"):
                await node.login("ann", "wrong password", **more)
        with refused("ACCOUNT_LOCKED"):
            await node.login("ann", **more)
    what = f"POST {ADMIN}/users/{{user_id}}/unlock"
    assert await node.ask(what, as_=admin, path={"user_id": ann.user_id}) == {"status": "unlocked"}
    assert (await actions(node))[-1] == ("admin:user:unlocked", admin.user_id, ann.user_id)
    await node.login("ann")
    await node.login("ann", **device)
    with refused("NOT_FOUND"):
        await node.ask(what, as_=admin, path={"user_id": new_id()})
    with refused("CONFLICT"):  # or a stolen token could guess at the password for ever
        await node.ask(what, as_=admin, path={"user_id": admin.user_id})


async def test_a_lost_second_factor_is_taken_away(node: Node) -> None:
    admin, ann = await admin_of(node), await node.register("ann")
    await turn_on_totp(node, ann)
    await turn_on_totp(node, admin)
    with refused("TOTP_REQUIRED"):
        await node.login("ann")
    what, path = f"DELETE {ADMIN}/users/{{user_id}}/totp", {"user_id": ann.user_id}
    assert await node.ask(what, as_=admin, path=path) == {"status": "removed"}
    assert ann.session_id in node.closed
    with refused("TOKEN_REVOKED"):
        await node.who(ann)
    assert await node.rows("SELECT user_id FROM recovery_codes GROUP BY user_id") == [(admin.user_id,)]
    back = await node.login("ann")
    await node.ask(what, as_=admin, path=path)  # there is none
    await node.who(back)
    noted = [each for each in await actions(node) if each[0] == "admin:totp:removed"]
    assert noted == [("admin:totp:removed", admin.user_id, ann.user_id)]
    with refused("NOT_FOUND"):
        await node.ask(what, as_=admin, path={"user_id": new_id()})
    with refused("CONFLICT"):  # what a stolen token must not do
        await node.ask(what, as_=admin, path={"user_id": admin.user_id})


async def turn_on_totp(node: Node, who: Person) -> None:
    begun = await node.ask("POST /v1/auth/totp/enroll", {"password": PASSWORD}, as_=who)
    code = pyotp.TOTP(begun["secret"]).at(node.db.now_us() // 1_000_000)
    await node.ask("POST /v1/auth/totp/confirm", {"code": code}, as_=who)


# without the database


async def test_a_ban_without_the_database_ends_sessions_at_once_and_is_stored_later(site: Site) -> None:
    node = await site.node()
    admin, ann = await admin_of(node), await node.register("ann")
    await node.who(admin)
    await node.who(ann)
    node.db.take_away()
    said = await ban(node, admin, ann, status=202, reason="spam")  # there is no feed to tell the others by
    assert said == {"status": "pending"}
    with refused("TOKEN_REVOKED"):
        await node.who(ann, outage=True)
    assert ann.user_id in node.signed_out
    await node.stop()  # what was promised outlives the process

    node.db.bring_back()
    again = await site.node(folder=node.folder)
    await again.room.poll_once()
    with refused("ACCOUNT_BANNED", reason="spam", until=None):
        await again.login("ann")
    assert (await actions(again))[-1] == ("admin:user:banned", admin.user_id, ann.user_id)
    assert json.loads((node.folder / "bans.pending").read_text()) == []
    assert (node.folder / "bans.pending").stat().st_mode & 0o777 == 0o600


async def test_a_ban_that_waits_is_replaced_and_lifted(site: Site) -> None:
    """It is stored before that, not after."""
    node = await site.node(replace(CHEAP, revocation_poll_ms=60_000))  # which is left to the test
    admin, ann = await admin_of(node), await node.register("ann")
    await node.who(admin)
    node.db.take_away()
    await ban(node, admin, ann, status=202)
    node.db.bring_back()
    await ban(node, admin, ann, reason="on second thoughts")
    await node.room.poll_once()
    with refused("ACCOUNT_BANNED", reason="on second thoughts", until=None):
        await node.login("ann")
    node.db.take_away()
    await ban(node, admin, ann, status=202)
    node.db.bring_back()
    await unban(node, admin, ann)
    await node.room.poll_once()
    await node.login("ann")


# who may


BODIES: dict[str, Any] = {"announcements": {"text": "hear"}, "{report_id}": {"state": "resolved"}}


async def test_the_rules_themselves_refuse_others(node: Node) -> None:
    """Of every route: who calls a rule in another way is not let through either."""
    ann = await node.register("ann")
    routes = [each for each in ROUTES if each.audience is Audience.ADMIN]
    assert len(routes) >= 17
    for route in routes:
        body = BODIES.get(route.path.rpartition("/")[2], {})
        path = dict.fromkeys(("user_id", "report_id", "invite_id"), new_id())
        with refused("FORBIDDEN"):
            await node.ask(f"{route.method} {route.path}", body, as_=ann, path=path)


# looking


async def test_people_are_listed_and_found(node: Node) -> None:
    admin = await admin_of(node)
    names = [f"user{number}" for number in range(5)]
    people = [await node.register(name) for name in names]
    await ban(node, admin, people[1], reason="spam")

    async def listed(**query: Any) -> list[str]:
        data = await node.ask(f"GET {ADMIN}/users", as_=admin, query=query)
        found = [each["user"]["username"] for each in data["users"]]
        if data["next_cursor"] is not None:
            found += await listed(**query | {"cursor": data["next_cursor"]})
        return found

    assert await listed(limit=2) == [*reversed(names), "root"]
    assert await listed(q="USER3@example") == ["user3"]
    assert await listed(q="100%") == []
    assert await listed(role="admin") == ["root"]
    assert await listed(banned=True) == ["user1"]
    assert await listed(banned=False, role="user") == ["user4", "user3", "user2", "user0"]
    (one,) = (await node.ask(f"GET {ADMIN}/users", as_=admin, query={"q": "user1"}))["users"]
    assert (one["ban"]["reason"], one["ban"]["banned_by"]) == ("spam", admin.user_id)
    assert one["user"]["email"] == "user1@example.org"
    assert one["last_seen_at"]
    with refused("VALIDATION", field="cursor"):
        await listed(cursor="first")


async def test_how_much_there_is(node: Node) -> None:
    admin, ann = await admin_of(node), await node.register("ann")
    await ban(node, admin, ann)
    stats = await node.ask(f"GET {ADMIN}/stats", as_=admin)
    assert (stats["users"], stats["admins"], stats["banned"], stats["sessions"]) == (2, 1, 1, 1)


async def test_the_audit_log_is_listed_filtered_and_exported(node: Node) -> None:
    admin, ann = await admin_of(node), await node.register("ann")
    for _ in range(3):
        await ban(node, admin, ann, reason="spam")

    async def listed(**query: Any) -> list[dict[str, Any]]:
        data = await node.ask(f"GET {ADMIN}/audit", as_=admin, query=query)
        found: list[dict[str, Any]] = data["entries"]
        if data["next_cursor"] is not None:
            found += await listed(**query | {"cursor": data["next_cursor"]})
        return found

    bans = await listed(action="admin:user:banned", limit=2)
    assert [(each["actor_id"], each["subject"]) for each in bans] == [(admin.user_id, ann.user_id)] * 3
    assert (bans[0]["facts"], bans[0]["personal"]["reason"]) == ({"until": None}, "spam")
    assert {each["action"] for each in await listed(actor_id=ann.user_id)} == {
        "auth:user:registered",
        "auth:session:opened",
    }
    assert len(await listed(subject=ann.user_id)) == 4
    assert await listed(until=to_iso(node.db.now_us() - 3_600_000_000)) == []
    with refused("VALIDATION", field="action"):
        await listed(action="admin:%")

    lines = await node.room.overview.export_audit(await node.who(admin), Asked())
    text = b"".join([piece async for piece in lines])
    rows = [msgspec.json.decode(line) for line in text.splitlines()]
    stored = await node.rows("SELECT COUNT(*) FROM audit")
    assert len(rows) == stored[0][0]
    assert [row["audit_id"] for row in rows] == sorted(row["audit_id"] for row in rows)
    assert (rows[-1]["action"], rows[-1]["actor_id"]) == ("admin:audit:exported", admin.user_id)
    lines = await node.room.overview.export_audit(await node.who(admin), Asked(), rows[3]["audit_id"])
    text = b"".join([piece async for piece in lines])
    assert [msgspec.json.decode(line) for line in text.splitlines()][:-1] == rows[4:]


async def test_whoever_reads_the_audit_log_is_in_it(node: Node) -> None:
    """From wherever they begin."""
    admin = await admin_of(node)

    async def read(**query: str) -> int:
        await node.ask(f"GET {ADMIN}/audit", as_=admin, query=query)
        rows = await node.rows("SELECT actor_id, facts FROM audit WHERE action = 'admin:audit:read'")
        assert {actor for actor, _ in rows} == {admin.user_id}
        return len(rows)

    assert await read(action="admin:user:banned") == 1
    assert await read(cursor="ffffffff-ffff-7fff-bfff-fffffffffffe") == 2
    assert await read(subject="ann@example.org") == 3
    last = await node.rows("SELECT facts FROM audit ORDER BY audit_id DESC LIMIT 1")
    assert last == [('{"subject":"no id"}',)], "a name would stay when its person is erased"


# reports


async def test_reports_are_made_once_read_and_settled(node: Node) -> None:
    admin, ann, bob = await admin_of(node), await node.register("ann"), await node.register("bob")
    body = {"user_id": bob.user_id, "reason": "spam", "comment": "again and again"}
    made = await node.ask("POST /v1/reports", body, as_=ann, status=201)
    same = await node.ask("POST /v1/reports", body, as_=ann, status=200)
    assert same == made
    noted = await node.rows("SELECT actor_id, subject FROM audit WHERE action = 'auth:report:made'")
    assert noted == [(ann.user_id, made["report_id"])]
    assert made["state"] == "open"
    (report,) = (await node.ask(f"GET {ADMIN}/reports", as_=admin, query={"state": "open"}))["reports"]
    assert (report["reporter_id"], report["user_id"], report["comment"]) == (
        ann.user_id,
        bob.user_id,
        "again and again",
    )
    path = {"report_id": report["report_id"]}
    what = f"PATCH {ADMIN}/reports/{{report_id}}"
    noted = await node.ask(what, {"note": "warned"}, as_=admin, path=path)
    assert (noted["state"], noted["note"]) == ("open", "warned")
    done = await node.ask(what, {"state": "resolved"}, as_=admin, path=path)
    assert (done["state"], done["note"], done["updated_by"]) == ("resolved", "warned", admin.user_id)
    assert (await node.ask(f"GET {ADMIN}/reports", as_=admin, query={"state": "open"}))["reports"] == []
    assert (await actions(node))[-1] == ("admin:report:updated", admin.user_id, report["report_id"])
    await node.ask("POST /v1/reports", body, as_=ann, status=201)  # it goes on
    with refused("VALIDATION", field="state"):
        await node.ask(what, {}, as_=admin, path=path)
    with refused("NOT_FOUND"):
        await node.ask(what, {"note": ""}, as_=admin, path={"report_id": new_id()})


async def test_a_message_is_reported_as_it_was_shown(node: Node) -> None:
    admin, ann, bob = await admin_of(node), await node.register("ann"), await node.register("bob")
    seen, room = MessageId(new_id()), ConversationId(new_id())

    async def shown(user: UserId, message: MessageId) -> Shown:
        if (user, message) != (ann.user_id, seen):
            raise NotFound
        return Shown(UserId(bob.user_id), room, "buy this")

    node.room.connect(ended=node.closed.extend, shown=shown)
    body = {"message_id": seen, "reason": "spam"}
    await node.ask("POST /v1/reports", body, as_=ann, status=201)
    with refused("NOT_FOUND"):
        await node.ask("POST /v1/reports", body, as_=admin)
    (report,) = (await node.ask(f"GET {ADMIN}/reports", as_=admin))["reports"]
    assert (report["user_id"], report["conversation_id"], report["content"]) == (
        bob.user_id,
        room,
        "buy this",
    )


async def test_what_cannot_be_reported(site: Site) -> None:
    node = await site.node(replace(CHEAP, open_reports=2))
    ann, others = await node.register("ann"), [await node.register(name) for name in ("bob", "cid", "dee")]
    for body in (
        {"reason": "spam"},
        {"reason": "spam", "user_id": ann.user_id},
        {"reason": "spam", "user_id": others[0].user_id, "message_id": new_id()},
    ):
        with refused("VALIDATION", field="user_id"):
            await node.ask("POST /v1/reports", body, as_=ann)
    with refused("NOT_FOUND"):
        await node.ask("POST /v1/reports", {"reason": "spam", "user_id": new_id()}, as_=ann)

    async def report(other: Person) -> Any:
        about = {"reason": "spam", "user_id": other.user_id}
        return await node.ask("POST /v1/reports", about, as_=ann, status=201)

    told = await at_once(*[partial(report, other) for other in others])
    assert sorted(told) == ["TOO_MANY_REPORTS", "done", "done"]


# announcements


async def test_announcements_are_told_and_listed_until_they_end(node: Node) -> None:
    admin, ann = await admin_of(node), await node.register("ann")
    told: list[Announcement] = []
    node.room.connect(ended=node.closed.extend, announce=told.append)
    what = f"POST {ADMIN}/announcements"
    until = later(node, 60)
    first = await node.ask(what, {"text": " maintenance tonight ", "until": until}, as_=admin)
    second = await node.ask(what, {"text": "welcome"}, as_=admin)
    assert [each.text for each in told] == ["maintenance tonight", "welcome"]
    assert (await node.ask("GET /v1/announcements", as_=ann))["announcements"] == [second, first]
    page = await node.ask("GET /v1/announcements", as_=ann, query={"limit": 1})
    rest = await node.ask("GET /v1/announcements", as_=ann, query={"limit": 1, "cursor": page["next_cursor"]})
    assert (page["announcements"], rest["announcements"], rest["next_cursor"]) == ([second], [first], None)
    node.db.forward(61)
    assert (await node.ask("GET /v1/announcements", as_=ann))["announcements"] == [second]
    assert len((await node.ask(f"GET {ADMIN}/announcements", as_=admin))["announcements"]) == 2
    for wrong in ({"text": "  "}, {"text": "late", "until": later(node, -1)}):
        with refused("VALIDATION"):
            await node.ask(what, wrong, as_=admin)
    assert [each for each in await actions(node) if each[0] == "admin:announcement:made"] == [
        ("admin:announcement:made", admin.user_id, each["announcement_id"]) for each in (first, second)
    ]
