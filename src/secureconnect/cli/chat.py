"""`secureconnect chat`: a terminal client. It reconnects, resumes and sends again by itself.

What other people write is shown as text: control characters never reach the terminal.
"""

from __future__ import annotations

import getpass
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import httpx
import trio
import typer
from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from .. import clock
from ..client import ApiError, Client, Event, OutboxFull, Stream, StreamEnded
from ..client.held import Entry, conversation_of
from ..client.wire import alongside
from .options import Failed
from .remembered import Remembered

SHOWN = 20  # messages of a conversation shown when it is opened
GOODBYE_S = 5.0
READY_S = 10.0  # a stream that takes longer is waited for no more: commands work without it

HELP = """\
/with NAME               open the conversation with one person
/group TITLE NAME...     make a group ("quote a title of several words")
/list                    your conversations
/open NUMBER             open one of the list
/edit [#N] TEXT          change message #N of yours, or your last one
/delete [#N]             delete it
/who                     who is in this conversation
/help, /quit
Anything else is sent to the open conversation."""


def chat(
    server: Annotated[str, typer.Option("--server", metavar="URL", help="The server to talk to.")] = (
        "http://127.0.0.1:8080"
    ),
    remember: Annotated[
        bool, typer.Option(help="Keep the sign-in on this machine, in a file only you can read.")
    ] = True,
    invite: Annotated[
        str, typer.Option(metavar="CODE", help="An invite, to register with: its code or its link.")
    ] = "",
) -> None:
    """Chat from the terminal."""
    try:
        trio.run(_main, server, remember, invite)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _main(server: str, remember: bool, invite: str) -> None:
    console = Console(highlight=False, soft_wrap=True)
    remembered = Remembered()

    def keep(credentials: Any) -> None:
        if remember:
            remembered.put(server, credentials)

    credentials = remembered.get(server) if remember else None
    async with Client(server, credentials, on_credentials=keep) as client:
        try:
            await _sign_in(client, console, invite)
            async with client.stream() as stream:
                await Terminal(client, stream, console).run()
        except httpx.TransportError as exc:
            raise Failed(f"there is no answer from {server} ({type(exc).__name__})") from None
        except ApiError as refusal:
            raise Failed(refusal.message) from None


async def _sign_in(client: Client, console: Console, invite: str) -> None:
    """With what is remembered, or by asking. Nothing else runs yet, so the questions may block."""
    if client.credentials is not None:
        try:
            await client.profile()
        except ApiError as refusal:
            if refusal.status != 401:
                raise
            console.print("You were signed out here.", style="dim")
        else:
            return
    while True:
        wants_new = _ask("Log in or register? [l/r] ").lower().startswith("r")
        username = _ask("Username: ")
        email = _ask("E-mail: ") if wants_new else ""
        password = _ask_hidden("Password: ")
        try:
            if wants_new:
                if not await _register(client, username, password, email, invite):
                    console.print(f"A mail was sent to {email}: confirm the address, then log in.")
                    continue
            else:
                await _log_in(client, username, password)
        except ApiError as refusal:
            console.print(f"{refusal.message} {refusal.details.get('field', '')}".rstrip(), style="red")
        else:
            return


async def _register(client: Client, username: str, password: str, email: str, invite: str) -> bool:
    """Asks for an invite if the server does and there is none. False: the address must be confirmed first."""
    try:
        me = await client.register(username, password, email, invite_code=_code_of(invite))
    except ApiError as refusal:
        if refusal.code != "INVITE_REQUIRED":
            raise
        me = await client.register(username, password, email, invite_code=_code_of(_ask("Invite: ")))
    return me is not None


def _code_of(invite: str) -> str:
    """invite: a code, or the link it stands in."""
    return invite.rpartition("#code=")[2]


async def _log_in(client: Client, username: str, password: str) -> None:
    """Asks for a code if the server does."""
    try:
        await client.login(username, password, device_name="terminal")
    except ApiError as refusal:
        if refusal.code != "TOTP_REQUIRED":
            raise
        code = _ask("Code of your authenticator app, or a recovery code: ")
        await client.login(username, password, device_name="terminal", totp_code=code)


def _ask(question: str) -> str:
    """Raises Failed at the end of the input."""
    print(question, end="", flush=True)
    line = sys.stdin.readline()
    if not line:
        raise Failed("nobody is signed in")
    return line.strip()


def _ask_hidden(question: str) -> str:
    return getpass.getpass(question) if sys.stdin.isatty() else _ask(question)


class Terminal:
    """One signed-in session at the terminal: lines in, lines out."""

    def __init__(self, client: Client, stream: Stream, console: Console) -> None:
        self._client = client
        self._stream = stream
        self._console = console
        self._names: dict[str, str] = {}
        self._listed: list[str] = []
        self._titles: dict[str, str] = {}
        self._open: str | None = None
        self._shown_seq = 0
        self._mine: str | None = None  # the last message of ours in the open conversation
        self._ids: dict[int, str] = {}  # seq -> message_id, of what is shown
        self._provisional: dict[str, tuple[str, str]] = {}  # message_id -> sender, text; not stored yet
        self._was_offline = False
        self._ready = trio.Event()

    async def run(self) -> None:
        """Until /quit, the end of the input, or an interrupt."""
        self._note(f"Signed in as {self._client.me.username}. /help tells what you can do.")
        async with alongside() as nursery:
            nursery.start_soon(self._end_on_interrupt, nursery)
            nursery.start_soon(self._follow, nursery)
            with trio.move_on_after(READY_S):
                await self._ready.wait()
            await self._obey(nursery)
            with trio.move_on_after(GOODBYE_S):
                await self._stream.drained()

    async def _end_on_interrupt(self, nursery: trio.Nursery) -> None:
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            async for _ in signals:
                nursery.cancel_scope.cancel()

    # lines in

    async def _obey(self, nursery: trio.Nursery) -> None:
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            self._erase_echo()
            if line.strip() == "/quit":
                return
            try:
                await self._do(line.strip(), nursery)
            except ApiError as refusal:
                self._note(refusal.message, "red")
            except httpx.TransportError:
                self._note("There is no answer from the server; try again.", "red")
            except OutboxFull:
                self._note("Too many messages are waiting to be sent; try again later.", "red")
            except ValueError as wrong:
                self._note(str(wrong), "red")

    async def _do(self, line: str, nursery: trio.Nursery) -> None:
        command, _, rest = line.partition(" ")
        match command:
            case "":
                pass
            case "/help":
                self._note(HELP)
            case "/list":
                await self._list()
            case "/with":
                made = await self._client.open_direct((await self._person(rest.strip()))["user_id"])
                await self._show(made["conversation_id"])
            case "/group":
                title, *names = shlex.split(rest) or [""]
                people = [(await self._person(name))["user_id"] for name in names]
                made = await self._client.create_group(title, people)
                await self._show(made["conversation_id"])
            case "/open":
                if not rest.isdigit() or not 1 <= int(rest) <= len(self._listed):
                    raise ValueError("/open takes a number of the /list.")
                await self._show(self._listed[int(rest) - 1])
            case "/edit":
                message_id, text = self._pointed(rest)
                await self._client.edit_message(message_id, text)
            case "/delete":
                message_id, _ = self._pointed(rest)
                await self._client.delete_message(message_id)
            case "/who":
                for one in await self._client.participants(self._opened()):
                    self._note(f"{_name(one)} (@{one['username']}), {one['role']}, {one['status']}")
            case _ if command.startswith("/"):
                raise ValueError(f"There is no {_clean(command)}; /help tells what there is.")
            case _:
                entry = self._stream.post(self._opened(), line)
                nursery.start_soon(self._report, entry)

    def _opened(self) -> str:
        if self._open is None:
            raise ValueError("Open a conversation first: /with NAME, or /open NUMBER.")
        return self._open

    def _pointed(self, rest: str) -> tuple[str, str]:
        """The message that `[#N] TEXT` points at, and the text."""
        word, _, text = rest.partition(" ")
        if word.startswith("#") and word[1:].isdigit():
            found = self._ids.get(int(word[1:]))
        else:
            found, text = self._mine, rest
        if found is None:
            raise ValueError("There is no such message here.")
        return found, text.strip()

    async def _person(self, username: str) -> dict[str, Any]:
        found = await self._client.search_users(username) if username else []
        for one in found:
            if one["username"].lower() == username.lower():
                return one
        raise ValueError(f"There is nobody called {_clean(username)!r}.")

    async def _report(self, entry: Entry) -> None:
        try:
            await self._stream.stored(entry)
        except ApiError as refusal:
            self._note(f"Not sent: {refusal.message}", "red")
        except StreamEnded:
            pass  # said where the events are read

    # what happens

    async def _follow(self, nursery: trio.Nursery) -> None:
        try:
            async for event in self._stream:
                try:
                    await self._happened(event)
                except (ApiError, httpx.TransportError):
                    continue  # a name could not be asked for; the stream itself says when it is offline
        except StreamEnded as ended:
            self._note(f"The server has ended this session: {ended.reason or ended.code}", "red")
            nursery.cancel_scope.cancel()

    async def _happened(self, event: Event) -> None:
        conversation_id = conversation_of(event)
        here = conversation_id is not None and conversation_id == self._open
        match event["type"]:
            case "offline" if not self._was_offline:
                self._was_offline = True
                self._note("Connection lost; trying again. What you write is kept and sent then.", "yellow")
            case "resuming" if self._was_offline:
                self._note("Connected again, as far as the server goes without its database.", "yellow")
            case "online" if not self._ready.is_set():
                self._was_offline = False
                await self._list()  # from here on everything is live: nothing falls in between
                self._ready.set()
            case "online" if self._was_offline:
                self._was_offline = False
                self._note("Connected again; nothing was missed.", "green")
            case "chat" if not here and event["message_type"] == "system":
                pass  # nobody wrote
            case "chat" if not here and conversation_id is not None:
                sender = await self._name_of(event["sender_id"])
                self._note(
                    f"{sender} wrote in {await self._title_of(conversation_id)}; /list to see.", "cyan"
                )
            case "chat" if event.get("provisional"):
                await self._print_provisional(event)
            case "message_withdrawn" if event["message_id"] in self._provisional:
                sender, text = self._provisional.pop(event["message_id"])
                self._note(f"Not stored, and taken back: {sender} {text}", "yellow")
            case "chat" if event["seq"] > self._shown_seq:
                self._provisional.pop(event["message_id"], None)
                await self._print(event)
                await self._stream.tell("read", conversation_id=conversation_id, seq=event["seq"])
            case "message_edited" if here:
                await self._print(event)
            case "message_deleted" if here:
                self._note(f"#{event['seq']} was deleted")
            case "reread" if here:
                self._note("Much was missed; the conversation again:", "yellow")
                await self._print_all(event["messages"][-SHOWN:])
            case "typing" if here and event["is_typing"]:
                self._note(f"{await self._name_of(event['user_id'])} is typing")
            case "user_joined" | "user_left" as kind if here:
                self._note(f"{_name(event['user'])} {'joined' if kind == 'user_joined' else 'left'}")
            case "degraded":
                self._note(_degraded(event["dependencies"]), "yellow")
            case "recovered":
                self._note("The server is whole again.", "green")
            case "conversation_updated" if conversation_id is not None:
                self._titles.pop(conversation_id, None)

    # lines out

    async def _list(self) -> None:
        found = await self._client.conversations()
        self._listed = [one["conversation_id"] for one in found]
        for number, one in enumerate(found, 1):
            unread = f", {one['unread_count']} unread" if one["unread_count"] else ""
            self._note(f"{number:3} {await self._title_of(one['conversation_id'])}{unread}")
        if not found:
            self._note("No conversations yet.")

    async def _show(self, conversation_id: str) -> None:
        messages = await self._client.history(conversation_id, SHOWN)
        self._open, self._shown_seq, self._mine = conversation_id, 0, None
        self._ids.clear()
        self._provisional.clear()
        self._note(f"--- {await self._title_of(conversation_id)}")
        await self._print_all(messages)
        if messages:
            await self._stream.tell("read", conversation_id=conversation_id, seq=messages[-1]["seq"])

    async def _print_all(self, messages: Sequence[Event]) -> None:
        for message in messages:
            await self._print(message)

    async def _print(self, message: Event) -> None:
        seq, sender = message["seq"], message["sender_id"]
        self._shown_seq = max(self._shown_seq, seq)
        self._ids[seq] = message["message_id"]
        if sender == self._client.me.user_id and not message["deleted_at"]:
            self._mine = message["message_id"]
        sent = datetime.fromtimestamp(clock.from_iso(message["sent_at"]) / clock.SECOND_US)
        line = Text.assemble(
            (f"{sent:%H:%M} #{seq} ", "dim"),
            (
                await self._sender_of(message),
                "bold cyan" if sender == self._client.me.user_id else "bold green",
            ),
            " ",
        )
        if message["deleted_at"]:
            line.append("deleted", "dim italic")
        else:
            line.append(_clean(message["content"]), "dim" if message["message_type"] == "system" else "")
            line.append(" (edited)" if message["edited_at"] else "", "dim")
        self._console.print(line)

    async def _print_provisional(self, message: Event) -> None:
        """Marked: the server has it, its database has not. It is shown again when that does."""
        sender, text = await self._sender_of(message), _clean(message["content"])
        self._provisional[message["message_id"]] = (sender, text)
        sent = datetime.fromtimestamp(clock.from_iso(message["sent_at"]) / clock.SECOND_US)
        self._note(f"{sent:%H:%M} #? {sender} {text} (not stored yet)")

    def _note(self, text: str, style: str = "dim") -> None:
        self._console.print(Text(text, style))

    def _erase_echo(self) -> None:
        """What was typed comes back as a message, or as an answer: take the terminal's own echo away."""
        if sys.stdin.isatty() and self._console.is_terminal:
            self._console.control(Control((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)))

    async def _name_of(self, user_id: str | None) -> str:
        if user_id is None:
            return "-"
        if user_id not in self._names:
            self._names[user_id] = _name(await self._client.user(user_id))
        return self._names[user_id]

    async def _sender_of(self, message: Event) -> str:
        try:
            return await self._name_of(message["sender_id"])
        except ApiError:  # who knows their name is away
            me = self._client.me
            return me.username if message["sender_id"] == me.user_id else "somebody"

    async def _title_of(self, conversation_id: str) -> str:
        if conversation_id not in self._titles:
            one = await self._client.conversation(conversation_id)
            others = [
                _name(person)
                for person in one.get("participants") or ()
                if person["user_id"] != self._client.me.user_id
            ]
            self._titles[conversation_id] = _clean(one["title"] or ", ".join(others) or "yourself")
        return self._titles[conversation_id]


def _name(user: Event) -> str:
    return _clean(user["display_name"] or user["username"])


def _degraded(dependencies: Mapping[str, Sequence[str]]) -> str:
    """`Degraded: redis is away (presence, typing).`"""
    away = [
        f"{name} is away ({', '.join(affected).replace('_', ' ')})" for name, affected in dependencies.items()
    ]
    return _clean(f"Degraded: {'; '.join(away)}.")


def _clean(text: str) -> str:
    """Without what could steer a terminal."""
    return "".join(
        char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text
    )
