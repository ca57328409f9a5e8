"""PgBouncer between the server and its Postgres, which is not for us."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from structlog.testing import capture_logs

from kit.keeper import keep
from kit.ports import free_port
from kit.postgres import USER, PostgresServer
from kit.wait import until
from secureconnect.config import Config, PostgresConfig
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.postgres import Postgres
from secureconnect.errors import Unavailable

from .conftest import look

IGNORED = (
    "extra_float_digits,application_name,statement_timeout,lock_timeout,idle_in_transaction_session_timeout,"
    "client_connection_check_interval,default_transaction_isolation,jit,timezone"
)


@contextmanager
def pgbouncer(postgres: PostgresServer, database: str, ignored: str) -> Iterator[PostgresConfig]:
    """ignored: settings of a connection that it drops; it refuses a connection with others."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("no pgbouncer")
    port = free_port()
    with TemporaryDirectory(prefix="secureconnect-pgbouncer-") as folder:
        Path(folder).chmod(0o755)  # root it refuses to be, and pytest's folders are closed to others
        file = Path(folder) / "pgbouncer.ini"
        file.write_text(
            f"[databases]\n{database} = host=127.0.0.1 port={postgres.port} user={USER}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = session\nignore_startup_parameters = {ignored}\n"
        )
        user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        process = keep(subprocess.Popen([program, "-q", file], stderr=subprocess.DEVNULL, **user))  # type: ignore[call-overload]
        try:
            yield PostgresConfig(url=postgres.url(database, port))
        finally:
            process.kill()
            process.wait()


async def test_a_pooler_is_told_even_if_all_seems_well(
    config: Config, postgres: PostgresServer, name: str
) -> None:
    with pgbouncer(postgres, name, IGNORED) as at:
        await takes_connections(at)
        found = await look(replace(config, postgres=at))
    assert list(found.failed) == ["postgres.pooler"]
    assert (await look(replace(config, postgres=PostgresConfig(url=postgres.url(name))))).failed == {}


async def test_a_server_behind_a_pooler_says_that_it_is_refused(postgres: PostgresServer, name: str) -> None:
    with pgbouncer(postgres, name, "extra_float_digits") as at:
        await takes_connections(at)
        with capture_logs() as logged:
            async with open_bridge() as bridge, Postgres.open(at, bridge) as db:
                with pytest.raises(Unavailable):
                    await db.probe()
    assert [line["error"] for line in logged if line["event"] == "database_refuses_us"] == [
        "ProtocolViolationError"
    ]


async def takes_connections(at: PostgresConfig) -> None:
    port = int(at.url.rpartition(":")[2].partition("/")[0])

    async def connects() -> bool:
        try:
            await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
        except OSError:
            return False
        return True

    await until(connects)
