"""Failing too often: who is locked out, for how long, and who never is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import trio

from secureconnect.auth import Letters, store
from secureconnect.auth.devices import DeviceClaim
from secureconnect.auth.passwords import Passwords
from secureconnect.auth.proofs import Claim, Proofs
from secureconnect.auth.sessions import Origin
from secureconnect.auth.totp.codes import Codes
from secureconnect.deps.contracts import Tx
from secureconnect.errors import AccountLocked, InvalidCredentials, Problem, Unavailable
from secureconnect.identity import UserId

from .harness import CHEAP, PASSWORD, Node, Person, Site, refused

LIMIT = CHEAP.lockout_failures
WRONG = "wrong password"
HOME = Origin("192.0.2.1", "tests")


async def fail(node: Node, times: int, username: str = "ann", **more: Any) -> None:
    for _ in range(times):
        with refused("INVALID_CREDENTIALS"):
            await node.login(username, WRONG, **more)


async def lock(node: Node, username: str = "ann") -> None:
    await fail(node, LIMIT, username)


def device_of(person: Person) -> dict[str, Any]:
    return {"device_id": person.device_id, "device_secret": person.device_secret}


async def login_from(node: Node, address: str, username: str, password: str = WRONG) -> None:
    await node.room.accounts.login(
        email=None,
        username=username,
        password=password,
        totp_code=None,
        claim=DeviceClaim(),
        origin=Origin(address, "tests"),
    )


async def test_too_many_failures_lock_the_account_for_a_while(node: Node, site: Site) -> None:
    await node.register()
    await lock(node)
    with pytest.raises(AccountLocked) as caught:
        await node.login()
    assert caught.value.status == 423
    assert CHEAP.lockout_s - 30 < (caught.value.retry_after_s or 0) <= CHEAP.lockout_s
    with refused("ACCOUNT_LOCKED"):
        await node.ask("POST /v1/auth/login", {"email": "ann@example.org", "password": PASSWORD})
    site.db.forward(CHEAP.lockout_s - 30)
    with refused("ACCOUNT_LOCKED"):
        await node.login()
    site.db.forward(30)
    await fail(node, LIMIT - 1)
    await node.login()


async def test_failures_of_long_ago_do_not_count(node: Node, site: Site) -> None:
    await node.register()
    await fail(node, 2)
    site.db.forward(CHEAP.lockout_window_s / 2)
    await fail(node, 2)
    site.db.forward(CHEAP.lockout_window_s / 2 + 1)
    await fail(node, LIMIT - 2)
    with refused("ACCOUNT_LOCKED"):
        await node.login()


async def test_what_a_lock_has_punished_does_not_count_again(site: Site) -> None:
    node = await site.node(replace(CHEAP, lockout_s=60))
    await node.register()
    await lock(node)
    site.db.forward(60)
    await lock(node)
    with refused("ACCOUNT_LOCKED"):
        await node.login()


async def test_a_right_password_is_not_counted_and_forgives_nothing(node: Node) -> None:
    await node.register()
    await fail(node, LIMIT - 1)
    for _ in range(LIMIT):
        await node.login()
    await fail(node, 1)
    with refused("ACCOUNT_LOCKED"):
        await node.login()


async def test_no_more_guesses_get_a_verdict_however_many_come_at_once(node: Node, site: Site) -> None:
    await node.register()
    nodes = [node, await site.node()]
    said: Counter[str] = Counter()

    async def guess(where: Node) -> None:
        with pytest.raises(Problem) as caught:
            await where.login("ann", WRONG)
        said[caught.value.code] += 1

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(guess, nodes[number % 2])
    assert said == {"INVALID_CREDENTIALS": LIMIT, "ACCOUNT_LOCKED": 50 - LIMIT}
    locks = await site.rows("SELECT subject FROM audit WHERE action = 'auth:account:locked'")
    assert len(locks) == 1


async def test_nobody_locks_a_known_device(node: Node) -> None:
    ann = await node.register()
    await lock(node)
    with refused("ACCOUNT_LOCKED"):
        await node.login(device_id=ann.device_id, device_secret="guessed")
    again = await node.login(**device_of(ann))
    assert again.device_id == ann.device_id


async def test_a_device_that_fails_is_locked_itself(node: Node) -> None:
    ann = await node.register()
    await fail(node, LIMIT, **device_of(ann))
    with refused("ACCOUNT_LOCKED"):
        await node.login(**device_of(ann))
    await node.login()


async def test_names_without_an_account_are_locked_alike(node: Node) -> None:
    await node.register()
    said = []
    for username in ("ann", "nobody"):
        await lock(node, username)
        with pytest.raises(AccountLocked) as caught:
            await node.login(username)
        problem = caught.value
        said.append((problem.code, problem.status, problem.message, problem.details, problem.denial))
        assert CHEAP.lockout_s - 30 < (problem.retry_after_s or 0) <= CHEAP.lockout_s
    assert said[0] == said[1]


async def test_an_address_that_fails_everywhere_is_locked(site: Site) -> None:
    node = await site.node(replace(CHEAP, lockout_address_failures=6))
    ann = await node.register()
    for number in range(6):
        with pytest.raises(InvalidCredentials):
            await login_from(node, f"2001:db8::{number}", f"name{number}")
    with pytest.raises(AccountLocked):  # one subscriber has the whole /64
        await login_from(node, "2001:db8::ffff", "ann", PASSWORD)
    await login_from(node, "2001:db8:0:1::1", "ann", PASSWORD)
    for number in range(6):
        with pytest.raises(InvalidCredentials):
            await login_from(node, HOME.address, f"other{number}")
    with refused("ACCOUNT_LOCKED"):
        await node.login()
    await node.login(**device_of(ann))


async def test_what_is_not_the_password_is_not_counted(site: Site) -> None:
    """Too many at once are turned away before anybody looks at their passwords."""
    node = await site.node(replace(CHEAP, argon2_waiting=1, argon2_memory_kib=32_768))
    names = [f"ann{number}" for number in range(6)]
    for name in names:
        await node.register(name)
    busy = 0

    async def log_in(name: str) -> None:
        nonlocal busy
        try:
            await node.login(name)
        except Unavailable:
            busy += 1

    async with trio.open_nursery() as nursery:
        for name in names * LIMIT:
            nursery.start_soon(log_in, name)
    assert busy > 0
    assert await site.rows("SELECT failures FROM lockouts") == []


async def test_cleared_for_who_has_proved_it_in_another_way(node: Node) -> None:
    ann = await node.register()
    await lock(node)
    await fail(node, LIMIT, **device_of(ann))
    await node.db.write(node.room.lockout.clear, UserId(ann.user_id))
    await node.login()
    await node.login(**device_of(ann))


async def test_who_is_signed_in_proves_it_again(node: Node) -> None:
    ann = await node.register()
    user_id = UserId(ann.user_id)
    require = node.room.reauthentication.require
    await lock(node)  # by somebody else
    await require(user_id, PASSWORD, None, HOME)
    for _ in range(LIMIT):
        with refused("INVALID_CREDENTIALS"):
            await require(user_id, WRONG, None, HOME)
    with refused("ACCOUNT_LOCKED"):
        await require(user_id, PASSWORD, None, HOME)


async def test_counters_name_nobody_and_are_pruned(node: Node, site: Site) -> None:
    await node.register()
    await fail(node, 1)
    await fail(node, 1, "nobody")
    kept = repr(await site.rows("SELECT * FROM lockouts"))
    assert len(await site.rows("SELECT * FROM lockouts")) == 3  # two names and the address
    assert not any(text in kept for text in ("ann", "nobody", HOME.address))
    site.db.forward(CHEAP.lockout_s - 30)
    await node.room.prune_once()
    assert len(await site.rows("SELECT * FROM lockouts")) == 3
    site.db.forward(60)
    await node.room.prune_once()
    assert await site.rows("SELECT * FROM lockouts") == []


async def test_a_password_replaced_meanwhile_accepts_nothing(node: Node, site: Site) -> None:
    """It was right when it was looked at; but whoever replaced it has ended every session."""
    ann = await node.register()
    passwords, lockout = Passwords(CHEAP), node.room.lockout
    proofs = Proofs(site.db, passwords, lockout, Codes(site.secrets, Letters(node.outbox, "")))
    accepted = []

    async def reserve(tx: Tx) -> Claim:
        held = await store.get_password_of(tx, UserId(ann.user_id))
        assert held is not None
        await tx.run("UPDATE users SET password_hash = 'another' WHERE user_id = $1", ann.user_id)
        attempt = await lockout.reserve_by_account(tx, held.user_id, HOME.address, site.db.now_us())
        return Claim(held, attempt)

    async def accept(_: Tx, user: store.User) -> None:
        accepted.append(user)

    with refused("UNAVAILABLE"):
        await proofs.require(reserve, PASSWORD, None, HOME, accept)
    assert accepted == []
    assert await site.rows("SELECT failures FROM lockouts") == []
