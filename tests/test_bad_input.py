"""Whatever is sent, the answer is a clear refusal: no 500, no hang, no 1011, and not half a row."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import httpx
import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.fixtures import StartServer
from kit.people import PASSWORD, direct, people, unique
from kit.pushservice import Browser
from kit.routes import ROUTES, example
from kit.server import Server
from secureconnect.chat.inbound import Inbound
from secureconnect.client.wire import Lost, connect
from secureconnect.signaling.frames import FLAGS, TARGETED, In

ANSWER_S = 10
SCHEMA_S = 300  # a tenth of it on two free cores
SEED = 20_261_122
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,response_headers_conformance,unsupported_method,allow_header_conformance"
)
SCHEMATHESIS = f"""
checks.enabled = false
{"".join(f"checks.{check}.enabled = true{chr(10)}" for check in CHECKS.split(","))}
"""
NOWHERE = "01900000-0000-7000-8000-000000000000"
NAMED = {"type": "m.x", "txn": "1", "version": "1", "emoji": "+"}  # parts of paths that are no ids

sized = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 2**31, 2**63, -(2**63), 10**40]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(["@user_id", "@conversation_id", "@message_id", "direct", "image", "member"]),
    st.sampled_from(["", "\0", "a\0b", "\ud800", "x" * 20_000, NOWHERE, "' OR 1=1 --", "٣", "\u202e", "é"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
DEEP = b"[" * 50_000 + b"]" * 50_000
RAW = [
    b"",
    b"null",
    b"[]",
    b'"text"',
    b"{",
    b"\xff\xfe",
    b'{"content": "\xed\xa0\x80"}',
    b'{"content": "\\ud800"}',
    b'{"content": "\\u0000"}',
    b'{"content": NaN}',
    b'{"content": 1e999}',
    b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    b'{"x": ' + DEEP + b"}",
    DEEP,
    b" " * 2_000_000,
]
# better than what the type of a field alone would give
GOOD: dict[str, Any] = {
    "algorithm": "m.x",
    "auth_data": {"public_key": "abc"},
    "device_keys": {"@user_id": []},
    "identity_key": "A" * 43,
    "messages": {"@user_id": {"*": {"a": 1}}},
    "one_time_keys": {"@user_id": {NOWHERE: "signed_curve25519"}},
    "one_time_pre_keys": [{"key_id": str(n), "public_key": "A" * 43} for n in range(20)],
    "rooms": {"!a": {"sessions": {}}},
    "signatures": {"@user_id": {}},
    "signed_pre_key": {"key_id": "1", "public_key": "A" * 43, "signature": "A" * 86},
    "callee_ids": ["@user_id"],
    "avatar_url": "https://example.org/a.png",
    "checksum_sha256": "0" * 64,
    "client_message_id": "key-1",
    "code": "123456",
    "comment": "again and again",
    "content": "hello",
    "content_type": "image/png",
    "conversation_id": "@conversation_id",
    "conversation_ids": ["@conversation_id"],
    "conversations": {"@conversation_id": 1},
    "device_name": "phone",
    "display_name": "Mallory",
    "email": "new@example.org",
    "emoji": "+",
    "encryption_metadata": {"iv": "abc"},
    "expires_at": "2999-01-01T00:00:00Z",
    "expires_in": 3600,
    "file_id": "@file_id",
    "file_ids": [],
    "file_name": "a.png",
    "file_size": 7,
    "history_id": NOWHERE,
    "invite_code": "x" * 43,
    "is_typing": True,
    "kinds": {"message": "off"},
    "max_uses": 2,
    "message_id": "@message_id",
    "message_retention_days": 7,
    "message_type": "text",
    "metadata": {"a": 1},
    "new_password": PASSWORD,
    "participant_ids": [],
    "password": PASSWORD,
    "note": "warned",
    "option_ids": ["@option_id"],
    "options": ["now", "later"],
    "quiet_hours": {"start": "22:00", "end": "07:00", "time_zone": "Asia/Ho_Chi_Minh"},
    "reason": "spam",
    "recording_id": NOWHERE,
    "refresh_token": "x" * 40,
    "reply_to": "@message_id",
    "role": "owner",
    "seq": 1,
    "state": "resolved",
    "status": "away",
    "text": "maintenance at noon",
    "title": "t",
    "token": "a.b.c",
    "totp_code": "123456",
    "type": "group",
    "until": "2999-01-01T00:00:00Z",
    "up_to": NOWHERE,
    "user_id": "@user_id",
    "user_ids": "@user_id",
    "username": "@username",
}
GOOD |= Browser("https://push.example.org/a").subscription
# what means something else in the query of these routes, or is left out there
LISTED = {"actor_id": NOWHERE, "action": "auth:session:opened", "since": "2026-01-01T00:00:00Z"}
ASKED: dict[str, dict[str, Any]] = {
    "/v1/admin/audit": LISTED,
    "/v1/admin/audit/export": LISTED | {"after": NOWHERE},
    "/v1/admin/users": {"role": "user"},
    "/v1/e2ee/sync": {"since": "1.0"},
    "/v1/messages": {"after_seq": None},  # one bound at a time
    "/v1/messages/search": {
        "after": "2026-01-01T00:00:00Z",
        "before": "2026-01-02T00:00:00Z",
        "sender_id": "@user_id",
    },
    "/v1/users/me/friends": {"state": "accepted"},
}


def good(shape: type) -> dict[str, Any]:
    return {name: GOOD.get(name, value) for name, value in example(shape).items()}


# what each route takes, by method and path, and each of its fields in a form that it may take
BODIES = {(route.method, route.path): good(route.body) for route in ROUTES if route.body is not None}
QUERIES = {
    (route.method, route.path): {
        name: value
        for name, value in (good(route.query) | {"cursor": None} | ASKED.get(route.path, {})).items()
        if value is not None
    }
    for route in ROUTES
    if route.query is not None and route.method == "GET"
}
CALLERS = ("user", "admin")
# every frame, with every field; and what is none
FRAMES = {str(kind.__struct_config__.tag): good(kind) for kind in get_args(Inbound)}
FRAMES |= {"hello": {"history_id": NOWHERE}, "\0": {"content": "hello"}}
SIGNALING_FRAMES = (*sorted(TARGETED), *FLAGS, "leave", "auth", "ping", "join", "resume", "peers", "\0")


def spoiled(fields: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A good document of these fields, some of them missing, some wrong."""
    wrong = st.dictionaries(st.sampled_from([*fields, "unknown", "cursor"]), values, max_size=2)
    missing = st.sets(st.sampled_from([*fields, "unknown"]), max_size=1)
    return st.builds(
        lambda wrong, missing: {
            name: value for name, value in (fields | wrong).items() if name not in missing
        },
        wrong,
        missing,
    )


bodies = st.sampled_from(list(BODIES)).flatmap(
    lambda route: st.tuples(st.just(route), spoiled(BODIES[route]))
)
queries = st.sampled_from(list(QUERIES)).flatmap(
    lambda route: st.tuples(st.just(route), spoiled(QUERIES[route]))
)
frames = st.sampled_from(list(FRAMES)).flatmap(
    lambda kind: spoiled(FRAMES[kind]).map(lambda fields: fields | {"type": kind})
)
signaling_frames = st.sampled_from(SIGNALING_FRAMES).flatmap(
    lambda kind: spoiled(good(In) | {"target_id": "@user_id"}).map(lambda fields: fields | {"type": kind})
)


def odd(path: str) -> st.SearchStrategy[str]:
    """One of its parts that vary is none that there is."""
    names = re.findall(r"{(\w+)}", path)
    parts = st.sampled_from(
        [
            "",
            ".",
            "..",
            "%00",
            "%2e%2e%2f",
            "%ff",
            "%ed%a0%80",
            "x" * 300,
            "-1",
            NOWHERE,
            NOWHERE.upper(),
            "a b",
            "👍" * 99,
        ]
    ) | st.text(max_size=10).map(lambda text: quote(text, safe="", errors="replace"))
    return st.builds(lambda name, part: path.replace(f"{{{name}}}", part), st.sampled_from(names), parts)


places = st.sampled_from([route for route in ROUTES if "{" in route.path]).flatmap(
    lambda route: st.tuples(st.just(route.method), odd(route.path))
)


def rows(server: Server) -> dict[str, int]:
    """How many rows each table has that a person's request could write, refusals apart."""
    with sqlite3.connect(f"file:{server.data_dir / 'secureconnect.db'}?mode=ro", uri=True) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        # these have writers of their own, which no request waits for; or count what was refused
        others = (
            *("sqlite_", "audit", "nodes", "outbox", "secrets", "lockouts", "search_"),
            *("notifications", "notified", "announced", "pushes", "last_seen", "call_peers"),
        )
        kept = [name for name in names if not name.startswith(others)]
        db.execute("BEGIN")  # all as at one moment
        counts = {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in kept}
        # polls close by themselves; the line of a call that is over is written behind it
        closings = "SELECT count(*) FROM changes WHERE kind = 'poll_closed'"
        counts["changes"] -= db.execute(closings).fetchone()[0]
        lines = "SELECT count(*) FROM messages WHERE client_message_id LIKE 'call/%'"
        counts["messages"] -= db.execute(lines).fetchone()[0]
    db.close()
    return counts


def make_admin(server: Server, user_id: str) -> None:
    with closing(sqlite3.connect(server.data_dir / "secureconnect.db", timeout=ANSWER_S)) as db, db:
        assert db.execute("UPDATE users SET role = 'admin' WHERE user_id = ?", (user_id,)).rowcount == 1


def encoded(document: object) -> bytes:
    """JSON, lone surrogates escaped as JavaScript does it."""
    return json.dumps(document).encode()


class Bad:
    """A signed-in caller of a server, who sends what nobody should."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.real: dict[str, str] = {}
        self._http = httpx.Client(base_url=server.url, timeout=ANSWER_S, trust_env=False, verify=False)
        self._tokens: dict[str, str] = {}
        self._begin()

    def _begin(self) -> None:
        """With one of everything."""
        signed_in = self._register("mallory")
        self._tokens = {"user": signed_in["access_token"]}
        room = self._made("/v1/conversations", type="group", title="alone", participant_ids=[])
        where = {"conversation_id": room["conversation_id"]}
        sent = self._made("/v1/messages", content="the only one", **where)
        poll = self._made("/v1/polls", question="When?", options=["now", "later"], **where)
        begun = self._made("/v1/storage/upload-url", file_name="a", file_size=0, content_type="a/b")
        callee = self._register("callee")["user"]["user_id"]
        pair = self._made("/v1/conversations", type="direct", participant_ids=[callee])
        self.real = {
            "@pair_id": pair["conversation_id"],
            "@file_id": begun["file_id"],
            "@user_id": signed_in["user"]["user_id"],
            "@conversation_id": room["conversation_id"],
            "@message_id": sent["message_id"],
            "@option_id": poll["options"][0]["option_id"],
            "@poll_id": poll["poll_id"],
            "@invite_id": NOWHERE,
            "@session_id": signed_in["session_id"],
            "@username": signed_in["user"]["username"],
        }
        with self.calling() as call_id:
            self.real["@call_id"] = call_id  # which is over by then: one that rings ends in its own time

    def _register(self, kind: str) -> dict[str, Any]:
        name = unique(kind)
        account = {"username": name, "password": PASSWORD, "email": f"{name}@example.org"}
        signed_in: dict[str, Any] = self._http.post("/v1/auth/register", json=account).json()["data"]
        return signed_in

    def _made(self, path: str, **document: Any) -> dict[str, Any]:
        made: dict[str, Any] = self.send("POST", path, encoded(document)).json()["data"]
        return made

    @contextmanager
    def calling(self) -> Iterator[str]:
        """The caller is in a call, meanwhile."""
        where = self.real["@pair_id"]
        call_id = self._made("/v1/calls/initiate", conversation_id=where, call_type="audio")["call_id"]
        yield call_id
        assert self.send("POST", f"/v1/calls/{call_id}/end", b"").is_success

    @property
    def token(self) -> str:
        return self.token_of("user")

    def token_of(self, caller: str) -> str:
        """admin: of somebody who may do everything."""
        if caller not in self._tokens:
            signed_in = self._register("root")
            make_admin(self.server, signed_in["user"]["user_id"])
            name = {"username": signed_in["user"]["username"], "password": PASSWORD}
            again = self._http.post("/v1/auth/login", json=name).json()
            self._tokens[caller] = again["data"]["access_token"]
        return self._tokens[caller]

    def stays_signed_in(self, caller: str) -> None:
        """What was sent before may have ended the session. Then somebody else goes on: what is refused at the
        door shows nothing."""
        if self.send("GET", "/v1/auth/profile", b"", caller).status_code == 401:
            self._begin()

    def with_real_ids(self, document: Any) -> Any:
        """The `@…` of a generated document become ids that exist, so that it gets as far as the rules."""
        if isinstance(document, dict):
            return {self.with_real_ids(key): self.with_real_ids(value) for key, value in document.items()}
        if isinstance(document, list):
            return [self.with_real_ids(value) for value in document]
        return self.real.get(document, document) if isinstance(document, str) else document

    def close(self) -> None:
        self._http.close()

    def send(self, method: str, path: str, body: bytes, caller: str = "user") -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token_of(caller)}", "Content-Type": "application/json"}
        path = re.sub(r"{(\w+)}", lambda name: self._named(name[1]), path)
        return self._http.request(method, path, content=body, headers=headers)

    def _named(self, name: str) -> str:
        return self.real.get(f"@{name}", NAMED.get(name, NOWHERE))

    def is_no_trouble(self, method: str, path: str, body: bytes, caller: str = "user") -> None:
        """path: with the names of its parts, or with what is to stand there."""
        self.token_of(caller)  # whose account is there before rows are counted
        before = rows(self.server)
        answer = self.send(method, path, body, caller)
        assert answer.status_code < 500, (method, path, body[:200], answer.text)
        if answer.is_client_error:
            assert set(answer.json()["error"]) >= {"code", "message"}
            assert rows(self.server) == before, (method, path, body[:200])


@pytest.fixture
def bad(server: Server) -> Iterator[Bad]:
    caller = Bad(server)
    yield caller
    caller.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("file_name", "a\nb"),
        ("file_name", "a\n"),
        ("file_name", ""),
        ("file_name", "x" * 256),
        ("content_type", "text/html\r\nx-evil: 1"),
        ("content_type", "text/plain\n"),
        ("content_type", "text"),
        ("content_type", "täxt/plain"),
        ("file_size", -1),
        ("file_size", 2**63),
        ("file_size", 2**62),
        ("file_size", "7"),
        ("checksum_sha256", "0" * 63 + "\n"),
        ("checksum_sha256", "A" * 64),
        ("encryption_metadata", {"a": {"b": 1}}),
        ("encryption_metadata", {str(n): n for n in range(40)}),
    ],
)
def test_files_that_cannot_be(bad: Bad, field: str, value: object) -> None:
    file = {"file_name": "a.txt", "file_size": 7, "content_type": "text/plain; charset=utf-8"}
    assert bad.send("POST", "/v1/storage/upload-url", encoded(file)).is_success
    before = rows(bad.server)
    answer = bad.send("POST", "/v1/storage/upload-url", encoded(file | {field: value}))
    assert answer.status_code in (413, 422), answer.text
    assert rows(bad.server) == before


@pytest.mark.parametrize("raw", RAW, ids=lambda raw: repr(raw[:12]))
def test_bodies_that_are_no_document(bad: Bad, raw: bytes) -> None:
    for method, path in BODIES:
        bad.is_no_trouble(method, path, raw, "admin")


@sized
@given(body=bodies, caller=st.sampled_from(CALLERS))
def test_bodies_with_wrong_fields(
    bad: Bad, body: tuple[tuple[str, str], dict[str, Any]], caller: str
) -> None:
    (method, path), document = body
    bad.stays_signed_in(caller)
    bad.is_no_trouble(method, path, encoded(bad.with_real_ids(document)), caller)


@sized
@given(place=places, caller=st.sampled_from(CALLERS))
def test_paths(bad: Bad, place: tuple[str, str], caller: str) -> None:
    """One part of the path is odd, the others are real."""
    method, path = place
    bad.stays_signed_in(caller)
    bad.is_no_trouble(method, path, b"{}", caller)


@sized
@given(query=queries, caller=st.sampled_from(CALLERS))
def test_queries(bad: Bad, query: tuple[tuple[str, str], dict[str, Any]], caller: str) -> None:
    (method, path), fields = query
    given = {key: str(value) for key, value in bad.with_real_ids(fields).items() if value is not None}
    text = str(httpx.QueryParams({key: value.encode("utf-8", "replace") for key, value in given.items()}))
    bad.stays_signed_in(caller)
    answer = bad.send(method, f"{path}?{text}", b"", caller)
    assert answer.status_code in (200, 400, 403, 404, 414, 422), (path, text, answer.text)


def test_every_route_is_tried_and_what_is_good_passes(bad: Bad) -> None:
    """Or what is called spoiled above would be refused for another reason."""
    assert {(route.method, route.path) for route in ROUTES if route.body} == set(BODIES)
    for route in ROUTES:
        if route.body is not None:
            document = bad.with_real_ids(BODIES[route.method, route.path])
            msgspec.json.decode(encoded(document), type=route.body)
    for kind in get_args(Inbound):
        document = bad.with_real_ids(FRAMES[kind.__struct_config__.tag])
        msgspec.json.decode(encoded(document | {"type": kind.__struct_config__.tag}), type=kind)
    refused = set()
    for (method, path), fields in QUERIES.items():
        query = httpx.QueryParams(bad.with_real_ids(fields))
        if bad.send(method, f"{path}?{query}", b"", "admin").status_code == 422:
            refused.add(path)
    assert not refused


async def outcome(
    bad: Bad, sent: list[str], refs: set[str], path: str = "/v1/ws/chat"
) -> tuple[int | None, int]:
    """Send the frames, and wait until each of `refs` and a last ping is answered, or the socket closed.

    Returns the close code or None, and how many frames were acked.
    """
    acks = 0
    waiting = refs | {"last"}
    url = f"ws{bad.server.url.removeprefix('http')}{path}"
    with trio.fail_after(ANSWER_S):
        async with connect(url, [(b"authorization", f"Bearer {bad.token}".encode())]) as wire:
            try:
                for frame in sent:
                    await wire.send(frame)
                await wire.send('{"type": "ping", "ref": "last"}')
                while waiting:
                    heard = json.loads(await wire.receive())
                    acks += heard["type"] == "ack"
                    if heard["type"] in ("ack", "error", "pong"):
                        waiting.discard(heard.get("ref"))
            except Lost as lost:
                return lost.code, acks
    return None, acks


@sized
@given(sent=st.lists(frames, min_size=1, max_size=4))
def test_frames_with_wrong_fields(bad: Bad, sent: list[dict[str, Any]]) -> None:
    before = rows(bad.server)
    told = {str(n): json.dumps(bad.with_real_ids({**frame, "ref": str(n)})) for n, frame in enumerate(sent)}
    code, acks = trio.run(outcome, bad, list(told.values()), set(told))
    assert code in (None, 1009, 4400, 4401, 4404), sent
    if code is None and not acks:
        assert rows(bad.server) == before


JOIN = '{"type": "join", "instance_id": "page"}'


@settings(sized, max_examples=40)
@given(sent=st.lists(signaling_frames, min_size=1, max_size=4))
def test_signaling_frames_with_wrong_fields(bad: Bad, sent: list[dict[str, Any]]) -> None:
    told = {str(n): json.dumps(bad.with_real_ids({**frame, "ref": str(n)})) for n, frame in enumerate(sent)}
    with bad.calling() as call_id:
        path = f"/v1/ws/signaling?call_id={call_id}"
        code, _ = trio.run(outcome, bad, [JOIN, *told.values()], set(told), path)
    left = any(frame["type"] == "leave" for frame in sent)
    assert code in (None, 1009, 4400, *([1000] if left else [])), sent


@pytest.mark.parametrize("raw", [raw for raw in RAW if len(raw) < 200_000], ids=lambda raw: repr(raw[:12]))
async def test_signaling_frames_that_are_no_document(bad: Bad, raw: bytes) -> None:
    with bad.calling() as call_id:
        path = f"/v1/ws/signaling?call_id={call_id}"
        for first in ([], [JOIN]):
            code, acks = await outcome(bad, [*first, raw.decode("utf-8", "replace")], set(), path)
            assert code in (None, 1009, 4400)
            assert acks == 0


@pytest.mark.parametrize("raw", [raw for raw in RAW if len(raw) < 200_000], ids=lambda raw: repr(raw[:12]))
async def test_frames_that_are_no_document(bad: Bad, raw: bytes) -> None:
    before = rows(bad.server)
    code, acks = await outcome(bad, [raw.decode("utf-8", "replace")], set())
    assert code in (None, 1009, 4400)
    assert acks == 0
    assert rows(bad.server) == before


async def test_a_frame_that_is_too_big(bad: Bad) -> None:
    code, _ = await outcome(bad, [json.dumps({"type": "chat", "content": "x" * 300_000})], set())
    assert code == 1009


async def test_schemathesis(start_server: StartServer, tmp_path: Path) -> None:
    """The whole document, each operation with good and bad data: nothing undocumented comes back."""
    server = start_server(LOG__LEVEL="warning")
    async with people(server.url, "ann", "bob") as (ann, bob):
        await direct(ann, bob)
        make_admin(server, ann.me.user_id)
        await ann.login(ann.me.username, PASSWORD)
        token = ann.me.access_token
    (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS)
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{server.url}/openapi.json",
        *("--phases", "examples,coverage,fuzzing"),
        *("--max-examples", "5"),
        *("--seed", str(SEED)),
        "--generation-deterministic",
        *("--request-timeout", str(ANSWER_S)),
        *("--header", f"Authorization:Bearer {token}"),
        *("--exclude-path-regex", "/logout|/sessions/"),  # they would end the session the rest needs
        *("--suppress-health-check", "all"),
        "--no-color",
    ]
    with trio.fail_after(SCHEMA_S):
        done = await trio.run_process(
            command, capture_stdout=True, stderr=subprocess.STDOUT, check=False, cwd=tmp_path
        )
    assert done.returncode == 0, done.stdout.decode()[-10_000:]
