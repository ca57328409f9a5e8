"""A minute of faults by a fixed seed; `scripts/chaos` goes on for as long as one likes."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import trio

from chaos.__main__ import main
from chaos.harness import DEGRADE_S, SLACK, under_load
from chaos.plan import Fault, brief, freeze, node_frozen
from kit.cluster import cluster
from kit.postgres import PostgresServer
from kit.store import ObjectStore

SEED = 20_261_125
LIMIT_S = 240  # a minute on two free cores


@pytest.fixture
def own_postgres() -> PostgresServer:
    """One that may be killed; durable, as an operator has it."""
    return PostgresServer(fsync="on", synchronous_commit="on", full_page_writes="on")


async def strike(
    folder: Path, postgres: PostgresServer, store: ObjectStore, *faults: tuple[Fault, float]
) -> None:
    """faults: each with the seconds it lasts."""
    try:
        await trio.to_thread.run_sync(postgres.start)
        with trio.fail_after(LIMIT_S):
            async with cluster(folder, postgres, store) as nodes, under_load(nodes, SEED) as chaos:
                for fault, hold_s in faults:
                    done = await chaos.strike(fault, hold_s)
                    assert done.stored, fault.name
                    if fault.away == {"postgres"}:
                        assert done.silence_s <= SLACK * DEGRADE_S, "nothing was accepted for too long"
                assert chaos.deeds_done == {"vote", "reaction", "file", "offer", "mute"}
    finally:
        store.heal()
        postgres.close()


async def test_one_fault_after_another(
    tmp_path: Path, own_postgres: PostgresServer, store: ObjectStore
) -> None:
    faults = brief(random.Random(SEED))
    await strike(tmp_path, own_postgres, store, *((fault, 2.0) for fault in faults))


async def test_what_hangs_for_long(tmp_path: Path, own_postgres: PostgresServer, store: ObjectStore) -> None:
    """Longer than anybody would wait who waited for an answer."""
    await strike(
        tmp_path, own_postgres, store, (freeze("postgres"), SLACK * DEGRADE_S + 2), (node_frozen(1), 6.0)
    )


def test_a_fault_that_there_is_not_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["chaos", "--only", "flood"])
    with pytest.raises(SystemExit):
        main()
    assert "no fault has 'flood' in its name" in capsys.readouterr().err
