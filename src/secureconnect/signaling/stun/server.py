"""A STUN server: whoever asks over UDP is told the address the question came from.

It keeps nothing of anybody. As the sender of a datagram may be forged, it answers requests alone, each at
most once, with a check sum only if asked with one: so an answer is at most 24 bytes longer than its question
(12 to IPv4), and nobody gets more of them in a second than `stun.answers_per_s`.
"""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import ExitStack

import structlog
import trio

from ...config import StunConfig
from .meters import ANSWERED, DROPPED_PACE, LISTENING, REFUSED, UNREADABLE, UNSENT
from .pace import Pace
from .wire import OPTIONAL, Address, Attribute, Kind, Message, Method, decode, encode

log = structlog.get_logger(module="stun")

DATAGRAM_BYTES = 1_500  # what is longer is read short, and so is no message
AT_ONCE = 64  # datagrams read before others have their turn

# attributes that must be understood, and are, though nothing here asks who somebody is
_UNDERSTOOD = {
    Attribute.MAPPED_ADDRESS,
    Attribute.USERNAME,
    Attribute.MESSAGE_INTEGRITY,
    Attribute.ERROR_CODE,
    Attribute.UNKNOWN_ATTRIBUTES,
    Attribute.REALM,
    Attribute.NONCE,
    Attribute.MESSAGE_INTEGRITY_SHA256,
    Attribute.PASSWORD_ALGORITHM,
    Attribute.USERHASH,
    Attribute.XOR_MAPPED_ADDRESS,
}
_ERROR_420 = b"\0\0\x04\x14"  # no words: they would make the answer longer
# what the system says where there is no IPv6
_NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}


class StunServer:
    """port: bound at the moment; None while it does not listen."""

    def __init__(self, config: StunConfig) -> None:
        self.port: int | None = None
        self._config = config

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen for ever. A port that is taken is no reason not to start: it is tried again."""
        is_told = False
        task_status.started()
        while True:
            try:
                with ExitStack() as open_:
                    sockets = await self._bind(open_)
                    is_told = False
                    await self._serve(sockets)
            except (OSError, ValueError) as exc:  # the latter: a host that is no name
                if not is_told:
                    log.warning("stun_not_listening", port=self._config.port, reason=str(exc))
                is_told = True
            await trio.sleep(self._config.retry_s)

    async def _bind(self, open_: ExitStack) -> list[socket.socket]:
        """Raises OSError."""
        host, port = self._config.host, self._config.port
        bound: list[socket.socket] = []
        for family, address in await _places(host):
            try:
                one = open_.enter_context(socket.socket(family, socket.SOCK_DGRAM))
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.setblocking(False)
                one.bind((address, port))
            except OSError as exc:
                if not host and exc.errno in _NO_SUCH_FAMILY:
                    continue
                raise
            port = one.getsockname()[1]
            bound.append(one)
        if not bound:
            raise OSError("this machine has no network")
        return bound

    async def _serve(self, sockets: list[socket.socket]) -> None:
        pace = Pace(self._config.datagrams_per_s, self._config.answers_per_s)
        self.port = sockets[0].getsockname()[1]
        log.info("stun_listening", port=self.port, addresses=len(sockets))
        LISTENING.set(1)
        try:
            async with trio.open_nursery() as nursery:
                for each in sockets[1:]:
                    nursery.start_soon(_answer_forever, each, pace)
                await _answer_forever(sockets[0], pace)
        finally:
            LISTENING.set(0)
            self.port = None


async def _places(host: str) -> list[tuple[int, str]]:
    """Where to listen: family and address. IPv4 comes first."""
    if not host:
        return [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]  # noqa: S104  (as the setting says)
    found = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    return sorted({(int(family), str(at[0])) for family, _, _, _, at in found})


async def _answer_forever(bound: socket.socket, pace: Pace) -> None:
    while True:
        await trio.lowlevel.wait_readable(bound)
        for _ in range(AT_ONCE):
            if rest_s := pace.rest_s(trio.current_time()):
                await trio.sleep(rest_s)
                break
            try:
                data, sender = bound.recvfrom(DATAGRAM_BYTES)
            except OSError:  # no more of them; or what the network has to say, once
                break
            if pace.admits(sender[0]):
                _answer(bound, data, sender)
            else:
                DROPPED_PACE.inc()


def _answer(bound: socket.socket, data: bytes, sender: tuple[str, int]) -> None:
    """sender: as the system has it; of IPv6, with flow and scope."""
    told = answer(data, (sender[0].partition("%")[0], sender[1]))
    if told is None:
        UNREADABLE.inc()
        return
    try:
        bound.sendto(told, sender)
    except OSError:  # no way back to it, or no room: it asks again
        UNSENT.inc()


def answer(data: bytes, sender: Address) -> bytes | None:
    """What is said to a datagram; None is silence, for whatever is no Binding request."""
    try:
        asked = decode(data)
    except ValueError:
        return None
    if asked.kind is not Kind.REQUEST or asked.method != Method.BINDING:
        return None
    if unknown := _unknown(asked):
        REFUSED.inc()
        listed = struct.pack(f"!{len(unknown)}H", *unknown)
        return _reply(
            asked, Kind.ERROR, (Attribute.ERROR_CODE, _ERROR_420), (Attribute.UNKNOWN_ATTRIBUTES, listed)
        )
    ANSWERED.inc()
    return _reply(asked, Kind.SUCCESS, (Attribute.XOR_MAPPED_ADDRESS, sender))


def _unknown(asked: Message) -> list[int]:
    """Types of attributes it asks to understand in vain, each once."""
    wanted = dict.fromkeys(each for each, _ in asked.attributes if each < OPTIONAL)
    return [each for each in wanted if each not in _UNDERSTOOD]


def _reply(asked: Message, kind: Kind, *attributes: tuple[int, bytes | Address]) -> bytes:
    is_summed = asked.get(Attribute.FINGERPRINT) is not None
    return encode(Method.BINDING, kind, asked.transaction, attributes, fingerprint=is_summed)
