"""Table by table, batch by batch, and where it stands."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .. import node
from ..deps import migrate
from ..deps.contracts import ConstraintViolation, Database, Row, Tx, UniqueViolation
from ..errors import OutcomeUnknown
from .compare import Difference, Sum, compare, read_page, shown, sum_of
from .tables import Strange, Table, quoted, read_names, read_order, read_tables

ROWS = 500  # of a batch; a row is at most as large as the longest message
ATTEMPTS = 3  # at a batch whose outcome did not become known


class Refused(Exception):
    """Why the move cannot be made or finished: one line for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Something was done.  doing: `copying` or `comparing`.  rows: of this table, so far; total: in the
    source."""

    doing: str
    table: str
    rows: int
    total: int


Tell = Callable[[Batch], None]
Also = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Moved:
    """sums: of the source, by table.  differences: empty if all is well.  before_us: when it had been done
    already, if it had."""

    sums: Mapping[str, Sum]
    differences: Sequence[Difference]
    resumed: bool
    before_us: int | None = None


@dataclass(slots=True)
class _State:
    """How far the move is, as it stands in the target.

    done: tables that are copied.  table, after: the one being copied, and the key of its last copied row.
    sums: once finished, what the source was then.
    """

    source: str
    done: list[str] = field(default_factory=list)
    table: str = ""
    after: list[list[Any]] | None = None
    rows: int = 0
    finished_us: int | None = None
    sums: dict[str, list[Any]] = field(default_factory=dict)

    def text(self) -> str:
        return json.dumps({name: getattr(self, name) for name in _State.__slots__}, sort_keys=True)

    @property
    def key(self) -> tuple[Any, ...] | None:
        return None if self.after is None else tuple(map(_thawed, self.after))


async def move(source: Database, target: Database, tell: Tell, also: Also) -> Moved:
    """Carry everything in `source`, which nobody else uses meanwhile, into `target`, or go on with that.

    tell: called after each batch.  also: done when the rows are there; False if it went wrong. The move is
    finished, and a server may start, when both are well.

    Raises Refused, migrate.MigrationError, or what a database raises; the
    same call then goes on where it was.
    """
    try:
        tables, history_id = await _source(source)
        state, resumed = await _begin(target, tables, history_id)
    except Strange as exc:
        raise Refused(str(exc)) from None
    counted = {each.name: await source.read(_count, each) for each in tables}
    if state.finished_us is not None:
        await also()
        return await _compare_with_then(source, tables, state, counted, tell)
    for table in tables:
        if table.name not in state.done:
            await _copy(source, target, table, state, counted[table.name], tell)
    sums, differences = {}, []
    for table in tables:
        total = counted[table.name]
        step = partial(_tell_compared, tell, table.name, total)
        sums[table.name], difference = await compare(source, target, table, ROWS, step)
        if difference is not None:
            differences.append(difference)
    if await also() and not differences:
        before = state.text()
        state.finished_us = target.now_us()
        state.sums = {name: [each.rows, each.checksum] for name, each in sums.items()}
        await target.write(_advance, before, state.text())
    return Moved(sums, differences, resumed)


async def _source(source: Database) -> tuple[list[Table], str]:
    if lacking := await migrate.missing(source):
        raise Refused(f"the source lacks {', '.join(lacking)}: run `secureconnect migrate` first")
    history_id = await source.read(node.read_history_id)
    if history_id is None:
        raise Refused("the source was never served: there is nothing to move")
    tables = await source.read(read_tables)
    return [tables[name] for name in await source.read(read_order, list(tables))], history_id


async def _begin(target: Database, tables: list[Table], history_id: str) -> tuple[_State, bool]:
    """The state in the target, and whether it was there before. `tables` get the target's types."""
    untouched = len(await migrate.missing(target)) == len(migrate.load(migrate.folder(), "postgres"))
    if untouched and (strange := sorted({each.name for each in tables} & await target.read(read_names))):
        raise Refused(f"the target has tables of something else: {', '.join(strange)}")
    await migrate.apply(target)
    there = await target.read(read_tables)
    _match(tables, there)
    tables[:] = [there[each.name] for each in tables]
    return await target.write(_find_or_begin, tables, history_id)


def _match(tables: Sequence[Table], there: Mapping[str, Table]) -> None:
    """Raises Strange where the sides differ in more than column types."""
    for here in tables:
        other = there.get(here.name)
        if other is None:
            raise Strange(f"table {here.name} is in the source alone")
        names = [each.name for each in here.columns], [each.name for each in other.columns]
        if names[0] != names[1] or here.key != other.key:
            raise Strange(f"table {here.name} has other columns or another key in the target")
    if more := sorted(set(there) - {each.name for each in tables}):
        raise Strange(f"in the target alone: {', '.join(more)}")


async def _find_or_begin(tx: Tx, tables: Sequence[Table], history_id: str) -> tuple[_State, bool]:
    text = await node.read_move(tx)
    if text is None:
        for each in tables:
            if await tx.one(f"SELECT 1 FROM {quoted(each.name)} LIMIT 1"):  # noqa: S608
                raise Refused(f"the target has data (table {each.name}): move into an empty database")
        state = _State(history_id)
        if await node.begin_move(tx, state.text()):
            return state, False
        raise Refused("another process moves into the same target")
    state = _State(**json.loads(text))
    if state.source != history_id:
        raise Refused("another installation is being moved, or was moved, into the target")
    return state, True


async def _copy(
    source: Database, target: Database, table: Table, state: _State, total: int, tell: Tell
) -> None:
    key = state.key if state.table == table.name else None
    rows = state.rows if state.table == table.name else 0
    while True:
        page = await source.read(read_page, table, key, ROWS)
        before = state.text()
        if page:
            key = table.key_of(page[-1])
            rows += len(page)
            state.table, state.after, state.rows = table.name, [_frozen(part) for part in key], rows
        if len(page) < ROWS:
            state.done.append(table.name)
            state.table, state.after, state.rows = "", None, 0
        await _store(target, table, page, before, state.text())
        tell(Batch("copying", table.name, rows, total))
        if len(page) < ROWS:
            return


async def _store(target: Database, table: Table, page: Sequence[Row], before: str, after: str) -> None:
    kept = [table.for_target(row) for row in page if not node.is_note(table.name, row)]
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await target.write(_put, table, kept, before, after)
        except OutcomeUnknown:
            if await target.read(node.read_move) == after:
                return
            if attempt == ATTEMPTS:
                raise
        except (UniqueViolation, ConstraintViolation, ValueError) as exc:
            first, last = (table.key_of(page[at]) for at in (0, -1))
            raise Refused(
                f"the target refuses rows of {table.name} between {shown(first)} and {shown(last)}: {exc}"
            ) from exc
        else:
            return


async def _put(tx: Tx, table: Table, rows: Sequence[Sequence[Any]], before: str, after: str) -> None:
    await _advance(tx, before, after)
    await tx.many(table.insert(), rows)


async def _advance(tx: Tx, before: str, after: str) -> None:
    if not await node.advance_move(tx, before, after):
        raise Refused("another process moves into the same target")


async def _compare_with_then(
    source: Database, tables: Sequence[Table], state: _State, counted: Mapping[str, int], tell: Tell
) -> Moved:
    """For a move that was finished before: what was changed in the source since."""
    sums, differences = {}, []
    for table in tables:
        here = sums[table.name] = await sum_of(source, table, ROWS)
        tell(Batch("comparing", table.name, here.rows, counted[table.name]))
        if [here.rows, here.checksum] != state.sums.get(table.name):
            then = Sum(*state.sums.get(table.name, (0, "")))
            differences.append(Difference(table.name, here, then, ()))
    return Moved(sums, differences, resumed=True, before_us=state.finished_us)


def _tell_compared(tell: Tell, table: str, total: int, rows: int) -> None:
    tell(Batch("comparing", table, rows, total))


async def _count(tx: Tx, table: Table) -> int:
    row = await tx.one(f"SELECT COUNT(*) FROM {quoted(table.name)}")  # noqa: S608
    return 0 if row is None else int(row[0])


def _frozen(part: Any) -> list[Any]:
    """A value of a key as JSON keeps it."""
    return ["bytes", part.hex()] if isinstance(part, bytes) else ["plain", part]


def _thawed(part: list[Any]) -> Any:
    return bytes.fromhex(part[1]) if part[0] == "bytes" else part[1]
