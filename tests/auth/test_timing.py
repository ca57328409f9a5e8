"""Whether there is an account, and what is the matter with it, does not show in how long an answer takes.

Each round asks about everybody, in a random order, so that what slows the machine slows all alike. Two are
told apart if one takes much longer than the other, and does so in most pairs: noise does the one or the
other, work that is left out does both.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import permutations, product
from statistics import fmean, median

import pytest
import trio

from secureconnect.auth.admin import store as admin
from secureconnect.auth.admin.store import Ban
from secureconnect.errors import Problem
from secureconnect.identity import UserId

from .harness import CHEAP, Node, Site
from .mailing import REGISTER, confirmed, registration
from .test_totp import turn_on

DEAR = replace(
    CHEAP, argon2_memory_kib=32_768, lockout_failures=1_000, lockout_address_failures=1_000, mail_pause_s=0
)
LOGIN, RESET = "POST /v1/auth/login", "POST /v1/auth/password-reset/request"

Ask = Callable[[], Awaitable[object]]


@pytest.fixture
async def node(site: Site) -> Node:
    return await site.node(DEAR, confirms_email=True)


async def times(asks: Mapping[str, Ask], rounds: int) -> dict[str, list[float]]:
    """Of each, in milliseconds, whether they are refused or not."""
    took: dict[str, list[float]] = {kind: [] for kind in asks}
    for _ in range(rounds):
        for kind in random.sample(sorted(asks), len(asks)):
            began = trio.current_time()
            with suppress(Problem):
                await asks[kind]()
            took[kind].append(1000 * (trio.current_time() - began))
    return took


async def cannot_be_told_apart(
    asks: Mapping[str, Ask], rounds: int, *, times_longer: float = 1.5, mostly: float = 0.9
) -> None:
    """times_longer: by its median.  mostly: in which part of all pairs of answers."""
    took = await times(asks, rounds)
    for one, other in permutations(took, 2):
        ratio = median(took[one]) / median(took[other])
        longer = fmean(a > b for a, b in product(took[one], took[other]))
        assert ratio < times_longer or longer < mostly, (one, other, ratio, longer)


def login(node: Node, username: str) -> Ask:
    return lambda: node.login(username, "wrong password")


async def test_of_signing_in(site: Site, node: Node) -> None:
    people = {name: await confirmed(node, site, name) for name in ("usual", "banned", "secured", "locked")}
    await turn_on(node, site, people["secured"])
    ban = Ban("spam", node.db.now_us(), None, None)
    await node.db.write(admin.add_ban, UserId(people["banned"].user_id), ban)
    names = ("usual", "banned", "secured", "nobody")
    await cannot_be_told_apart({name: login(node, name) for name in names}, 12)
    strict = await site.node(replace(DEAR, lockout_failures=1))
    for name in ("locked", "nobody2"):
        with suppress(Problem):
            await strict.login(name, "wrong password")
    await cannot_be_told_apart({name: login(strict, name) for name in ("locked", "nobody2")}, 30)


async def test_of_registering(site: Site, node: Node) -> None:
    await confirmed(node, site)
    number = 0

    def register(email: str) -> Ask:
        async def ask() -> None:
            nonlocal number
            number += 1
            body = registration(f"new{number}", email.format(number))
            await node.ask(REGISTER, body, status=202)

        return ask

    known, new = register("ann@example.org"), register("new{}@example.org")
    await cannot_be_told_apart({"known": known, "new": new}, 12)


async def test_of_asking_for_a_new_password(site: Site, node: Node) -> None:
    await confirmed(node, site)

    def reset(email: str) -> Ask:
        return lambda: node.ask(RESET, {"email": email})

    known, nobody = reset("ann@example.org"), reset("nobody@example.org")
    # nothing dear is done here, so what is left out would be little: more rounds, and less is enough
    asks = {"known": known, "nobody": nobody}
    await cannot_be_told_apart(asks, 100, times_longer=1.25, mostly=0.7)
