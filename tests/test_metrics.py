"""Metrics: one registry, one exposition, the event loop's own lag, and labels that nobody makes longer."""

from __future__ import annotations

import time
from pathlib import Path

import trio
from trio.testing import MockClock

import test_metrics_live
import test_metrics_nodes
from chat.test_presence import Ears
from kit.scrape import declared, value
from secureconnect import metrics
from secureconnect.auth.devicekeys.names import Names
from secureconnect.auth.devicekeys.news import News
from secureconnect.chat.carrier import Carrier
from secureconnect.config import MemoryConfig
from secureconnect.deps.contracts import Database
from secureconnect.deps.memory import MemoryBus, MemorySignals
from secureconnect.edge import Frame
from secureconnect.errors import Overloaded
from secureconnect.identity import NodeId, UserId, new_id

TESTS = Path(__file__).parent

# What a test of its own moves, because it takes more than a deed on a running server: where that is.
ELSEWHERE = {
    "secureconnect_auth_key_news_lost_total": "test_metrics.py",
    "secureconnect_chat_unpublished_total": "test_metrics.py",
    "secureconnect_audit_chain_whole": "audit/test_chain.py",
    "secureconnect_backup_bytes": "backup/test_schedule.py",
    "secureconnect_backup_duration_seconds": "backup/test_schedule.py",
    "secureconnect_backup_failures_total": "backup/test_schedule.py",
    "secureconnect_backup_files_lost": "backup/test_schedule.py",
    "secureconnect_backup_due_timestamp_seconds": "backup/test_schedule.py",
    "secureconnect_backup_last_success_timestamp_seconds": "backup/test_schedule.py",
    "secureconnect_calls_given_up_total": "signaling/test_recovery.py",
    "secureconnect_chat_healed_total": "chat/test_nodes.py",
    "secureconnect_chat_sockets_dropped_total": "journeys/test_slow_reader.py",
    "secureconnect_deps_calls": "deps/test_guard.py",
    "secureconnect_gateway_certificate_expires_seconds": "gateway/test_certificates.py",
    "secureconnect_gateway_connections_failed_total": "gateway/test_entrance.py",
    "secureconnect_gateway_connections_refused_total": "gateway/test_connections.py",
    "secureconnect_gateway_faults_total": "gateway/house.py",
    "secureconnect_gateway_frames_shed_total": "gateway/test_fanout.py",
    "secureconnect_gateway_outbox_bytes": "gateway/test_fanout.py",
    "secureconnect_gateway_sockets_blocked": "gateway/test_fanout.py",
    "secureconnect_nodes": "journeys/test_nodes.py",
    "secureconnect_outbox_mails_total": "test_outbox.py",
    "secureconnect_outbox_waiting": "test_outbox.py",
    "secureconnect_pushes_total": "journeys/test_pushes.py",
    "secureconnect_ready": "gateway/test_operations.py",
    "secureconnect_room_restarts_total": "test_supervise.py",
    "secureconnect_room_up": "test_supervise.py",
    "secureconnect_signals_lost_total": "deps/test_signal_order.py",
    "secureconnect_stun_datagrams_total": "signaling/test_stun.py",
    "secureconnect_stun_listening": "signaling/test_stun.py",
    "secureconnect_tasks": "test_leaks.py",
    "secureconnect_tracing_spans_total": "test_tracing.py",
    # what does not move, but must be right
    "db_connections_limit": "test_metrics_live.py",
    "secureconnect_disk_size_bytes": "test_metrics_live.py",
}


def test_every_metric_is_moved_by_a_test() -> None:
    by_deeds = test_metrics_live.DEEDS.names() | test_metrics_nodes.DEEDS.names()
    assert declared() - by_deeds == ELSEWHERE.keys()
    for name, place in ELSEWHERE.items():
        assert name in (TESTS / place).read_text("utf-8"), (name, place)


def test_what_is_declared_is_exposed() -> None:
    counter = metrics.counter("test_things_total", "Things.", ["kind"])
    counter.labels("one").inc(3)
    text = metrics.exposition().decode()
    assert 'test_things_total{kind="one"} 3.0' in text
    assert "process_resident_memory_bytes" in text
    assert "secureconnect_loop_lag_seconds_bucket" in text
    metrics.REGISTRY.unregister(counter)


async def test_an_idle_loop_is_on_time(autojump_clock: MockClock) -> None:
    looks, lag_s = (
        value("secureconnect_loop_lag_seconds_count"),
        value("secureconnect_loop_lag_seconds_sum"),
    )
    with trio.move_on_after(10 * metrics.LAG_PERIOD_S + 0.01):
        await metrics.watch_loop()
    assert value("secureconnect_loop_lag_seconds_count") - looks == 10
    assert value("secureconnect_loop_lag_seconds_sum") - lag_s < 0.01


async def test_a_blocked_loop_shows() -> None:
    lag_s = value("secureconnect_loop_lag_seconds_sum")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(metrics.watch_loop)
        await trio.testing.wait_all_tasks_blocked()  # it sleeps
        time.sleep(metrics.LAG_PERIOD_S + 0.2)  # noqa: ASYNC251  (blocking is the point)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert value("secureconnect_loop_lag_seconds_sum") - lag_s > 0.15


def test_a_disk_that_does_not_tell_spoils_no_scrape(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    metrics.watch_disk(folder)
    assert 0 < value("secureconnect_disk_free_bytes") <= value("secureconnect_disk_size_bytes")
    folder.rmdir()
    assert "secureconnect_disk_free_bytes NaN" in metrics.exposition().decode()


class FullSignals(MemorySignals):
    def send(self, channel: str, payload: bytes) -> None:
        raise Overloaded


async def test_what_could_not_be_told_is_counted(db: Database) -> None:
    signals = FullSignals(MemoryConfig(), 1_000)
    untold = value("secureconnect_auth_key_news_lost_total")
    News(db, signals, Names("example.org")).changed(UserId(new_id()), 0)
    assert value("secureconnect_auth_key_news_lost_total") == untold + 1

    def nothing(*_: object) -> None: ...

    unsent = value("secureconnect_chat_unpublished_total")
    Carrier(
        MemoryBus(MemoryConfig()), signals, NodeId("here"), 64, 10.0,
        deliver=nothing, presence=Ears(), parted=nothing, lost=nothing, proclaim=nothing,
    ).tell_everybody(Frame(b"{}"))  # fmt: skip
    assert value("secureconnect_chat_unpublished_total") == unsent + 1
