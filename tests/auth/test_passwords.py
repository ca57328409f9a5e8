"""Hashing: bounded, equal in time, renewed."""

from __future__ import annotations

import base64
import time
import unicodedata
from dataclasses import replace

import pytest
import trio
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import VerifyMismatchError
from hypothesis import given, settings
from hypothesis import strategies as st

from secureconnect.auth.passwords import Passwords, _made_up
from secureconnect.config import AuthConfig
from secureconnect.errors import Problem

from .harness import CHEAP, PASSWORD, Site, refused


async def test_argon2id_with_the_parameters_of_the_settings() -> None:
    passwords = Passwords(AuthConfig())
    made = await passwords.hash(PASSWORD)
    assert made.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await passwords.verify(made, PASSWORD)
    assert not await passwords.verify(made, PASSWORD + "x")


async def test_each_hash_has_a_salt_of_its_own() -> None:
    passwords = Passwords(CHEAP)
    salts = {(await passwords.hash(PASSWORD)).split("$")[4] for _ in range(8)}
    assert len(salts) == 8
    assert {len(base64.b64decode(salt + "==")) for salt in salts} == {16}


async def test_an_unknown_user_has_no_password() -> None:
    passwords = Passwords(CHEAP)
    assert not await passwords.verify(None, PASSWORD)
    assert not await passwords.verify(None, "")


def test_what_stands_in_for_unknown_users_is_like_a_real_hash() -> None:
    hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    made_up = _made_up(hasher)
    assert extract_parameters(made_up) == extract_parameters(hasher.hash(PASSWORD))
    assert made_up != _made_up(hasher)
    with pytest.raises(VerifyMismatchError):
        hasher.verify(made_up, PASSWORD)


async def test_unknown_users_take_as_long_as_wrong_passwords(site: Site) -> None:
    unlocked = replace(CHEAP, lockout_failures=1_000, lockout_address_failures=1_000)
    node = await site.node(replace(unlocked, argon2_memory_kib=8192))
    await node.register()
    took: dict[str, list[float]] = {"ann": [], "nobody": []}
    for _ in range(25):
        for username, times in took.items():
            start = time.perf_counter()
            with refused("INVALID_CREDENTIALS"):
                await node.login(username, "wrong password")
            times.append(time.perf_counter() - start)
    known, unknown = (min(times) for times in took.values())  # what else the machine does only adds
    assert known / 1.5 < unknown < known * 1.5


async def test_more_than_may_wait_are_turned_away() -> None:
    passwords = Passwords(replace(CHEAP, argon2_memory_kib=16_384, argon2_waiting=4))
    outcomes: list[str] = []

    async def one() -> None:
        try:
            await passwords.hash(PASSWORD)
            outcomes.append("ok")
        except Problem as problem:
            outcomes.append(problem.code)

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(one)
    assert outcomes.count("UNAVAILABLE") >= 80
    assert outcomes.count("ok") >= 4


async def test_hashes_are_renewed_at_login(site: Site) -> None:
    before = await site.node()
    await before.register()
    [(old,)] = await before.rows("SELECT password_hash FROM users")
    after = await site.node(replace(CHEAP, argon2_time_cost=2))
    with refused("INVALID_CREDENTIALS"):
        await after.login("ann", "wrong password")
    assert await before.rows("SELECT password_hash FROM users") == [(old,)]
    await after.login()
    [(new,)] = await before.rows("SELECT password_hash FROM users")
    assert new != old
    assert ",t=2," in new
    await after.login()
    assert await before.rows("SELECT password_hash FROM users") == [(new,)]


@given(st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=100, deadline=None)
def test_a_password_opens_what_it_closed_and_nothing_else(one: str, other: str) -> None:
    async def main() -> None:
        passwords = Passwords(CHEAP)
        made = await passwords.hash(one)
        assert await passwords.verify(made, unicodedata.normalize("NFD", one))
        same = unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
        assert await passwords.verify(made, other) is same

    trio.run(main)
