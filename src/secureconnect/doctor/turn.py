"""STUN and TURN: each server that clients are told of is asked, and each relay has to relay something."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from ..clock import SECOND_US, now_us
from ..config import Config
from ..settings import STUN_URLS, TURN_URLS
from ..signaling.ice import Credentials, credentials
from ..signaling.stun.wire import Address
from .findings import Report
from .relay import Client, NotTurn, Place, Refused, place_of, way_to

ANSWER_S = 5.0
ECHO_S = 3.0
ADDRESSES = 4  # of one name
SHORT = 16  # characters of a secret
USER = "doctor"
FAR_S = 10 * 365 * 86_400  # no clock is wrong by so much

Ask = Callable[[Place, str], Awaitable[str]]
"""Asks a place at an address of it; what is good about it. Raises what `_reason` knows."""


class Faulty(Exception):
    """It answers, and is of no use."""

    def __init__(self, found: str, mend: str) -> None:
        super().__init__(found)
        self.found = found
        self.mend = mend


FAULTS = (OSError, trio.BrokenResourceError, trio.TooSlowError, NotTurn, Refused, Faulty)


async def check(config: Config, report: Report) -> None:
    turn = config.turn
    if not turn.urls:
        report.ok("turn", "none: calls connect where the networks between let them")
    elif len(turn.secret) < SHORT:
        report.warn(
            "turn.secret",
            f"it has less than {SHORT} characters: who has one login can find it out",
            "make one with `openssl rand -hex 32`, and set it here and as coturn's static-auth-secret",
        )
    for url in turn.urls:
        await _ask_each("turn", url, _relays(turn.secret, turn.credentials_s), report)
    for url in turn.stun_urls:
        await _ask_each("stun", url, _sees, report)
    if config.stun.enabled and config.stun.port:
        await _check_own(config, report)


async def _check_own(config: Config, report: Report) -> None:
    """The STUN server in the process of the server."""
    stun = config.stun
    if not config.turn.stun_urls and not config.gateway.public_url:
        report.warn(
            "stun",
            "stun.enabled is true, and clients are told of it by gateway.public_url, which is empty",
            "set gateway.public_url, or turn.stun_urls",
        )
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(stun.host, stun.host)  # noqa: S104
    try:
        await _sees(Place(host, stun.port, "udp"), host)
    except (OSError, trio.TooSlowError, NotTurn, Refused) as exc:
        report.warn(
            "stun",
            f"nothing answers on UDP port {stun.port} of {host}: {report.said(exc)}",
            "start the server; if it runs, its log has stun_not_listening: another program holds the port",
        )
    else:
        report.ok("stun", f"UDP port {stun.port} of {host} answers")


async def _ask_each(name: str, url: str, ask: Ask, report: Report) -> None:
    """At each address of its host, as clients may use any."""
    form = TURN_URLS if name == "turn" else STUN_URLS
    if not form.fits(url):
        report.fail(
            name, f"{url} is none of the {form.name.removeprefix('list of ')}", f"correct {name} URLs"
        )
        return
    place = place_of(url)
    try:
        with trio.fail_after(ANSWER_S):
            addresses = await _addresses(place)
    except (OSError, UnicodeError, trio.TooSlowError) as exc:
        found = f"{url}: no address of {place.host}: {report.said(exc)}"
        report.fail(name, found, "correct the host, or its record in DNS")
        return
    for address in addresses:
        at = url if address == place.host else f"{url} at {address}"
        try:
            found = await ask(place, address)
        except FAULTS as exc:
            found, mend = _reason(exc, place, report)
            report.fail(name, f"{at}: {found}", mend)
        else:
            report.ok(name, f"{at}: {found}")


async def _addresses(place: Place) -> list[str]:
    """Of the families this machine speaks. Raises OSError."""
    found = await trio.socket.getaddrinfo(
        place.host, place.port, type=trio.socket.SOCK_STREAM, flags=trio.socket.AI_ADDRCONFIG
    )
    return list(dict.fromkeys(str(each[4][0]) for each in found))[:ADDRESSES]


async def _sees(place: Place, host: str) -> str:
    with trio.fail_after(ANSWER_S):
        async with way_to(place, host) as way:
            seen = await Client(way).mapped()
    return f"sees this machine as {_written(seen)}"


def _relays(secret: str, valid_s: int) -> Ask:
    def login(for_s: int) -> Credentials:
        return credentials(secret, USER, now_us() // SECOND_US + for_s)

    async def ask(place: Place, host: str) -> str:
        try:
            return await _relay(place, host, login(valid_s))
        except Refused as refused:
            if refused.code != 401:
                raise
        try:
            await _relay(place, host, login(FAR_S))
        except Refused:
            raise Faulty(
                "401: it does not accept what turn.secret makes",
                "set turn.secret to its static-auth-secret, and see that it has use-auth-secret",
            ) from None
        raise Faulty(
            f"401: a login good for {valid_s} s is over for it: its clock is far ahead of this machine's",
            "set both clocks, by NTP",
        )

    return ask


async def _relay(place: Place, host: str, login: Credentials) -> str:
    """Have a port there, send from it to itself, and give it back."""
    with trio.fail_after(ANSWER_S + ECHO_S):
        async with way_to(place, host) as way:
            client = Client(way, login)
            with trio.fail_after(ANSWER_S):
                relayed = await client.allocate()
            try:
                _look_at(client.is_known, relayed, host)
                began = trio.current_time()
                await _send_round(client, relayed)
                took_ms = (trio.current_time() - began) * 1e3
            finally:
                with trio.move_on_after(1, shield=True), suppress(*FAULTS):
                    await client.release()
    return f"relays from {_written(relayed)}, there and back in {took_ms:.1f} ms"


def _look_at(is_known: bool, relayed: Address, host: str) -> None:
    """is_known: whether it asked for a login.  host: where it was asked."""
    if not is_known:
        raise Faulty(
            "it relays for anybody, without a login",
            "set use-auth-secret and static-auth-secret in its settings",
        )
    if ipaddress.ip_address(relayed[0]).is_private and not ipaddress.ip_address(host).is_private:
        raise Faulty(
            f"it relays from {relayed[0]}, an address nobody outside reaches",
            "set external-ip in its settings to its public and its private address",
        )


async def _send_round(client: Client, relayed: Address) -> None:
    try:
        await client.permit(relayed)
    except Refused as refused:
        if refused.code != 403:
            raise
        raise Faulty(
            f"403: it relays nothing to {relayed[0]}, its own address, where two who need it would meet",
            "set allowed-peer-ip to that address; with external-ip, to the private one of the two",
        ) from None
    with trio.move_on_after(ECHO_S):
        await client.echo(relayed, os.urandom(16))
        return
    raise Faulty(
        f"it lets us in, but what it sends to itself at {_written(relayed)} does not come back",
        "let UDP to its ports from min-port to max-port through the firewalls, and correct its external-ip",
    )


def _written(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: Exception, place: Place, report: Report) -> tuple[str, str]:
    """What happened and how to mend it: the one table."""
    said = report.said(error.__cause__ or error)
    protocol = "UDP" if place.transport == "udp" else "TCP"
    match error:
        case Faulty():
            return error.found, error.mend
        case Refused(code=486):
            return f"{said}: it gives no more to one person", "raise user-quota in its settings"
        case Refused(code=508):
            return f"{said}: it has no more to give", "raise total-quota, or widen min-port to max-port"
        case Refused():
            return f"it refuses: {said}", "look at its log"
        case NotTurn():
            return f"what answers is no such server: {said}", "correct host and port"
        case trio.TooSlowError():
            return (
                f"no answer within {ANSWER_S:g} s",
                f"let {protocol} port {place.port} through the firewalls, and see that it runs",
            )
        case ConnectionRefusedError():
            return (
                f"refused: nothing listens on {protocol} port {place.port}",
                "start it, or correct host and port",
            )
    if (certificate := _cause(error, ssl.SSLCertVerificationError)) is not None:
        return (
            f"its certificate is not good for {place.host}: {report.said(certificate)}",
            "have it renewed, for this name, and cert name the whole chain; browsers refuse it, too",
        )
    if (tls := _cause(error, ssl.SSLError)) is not None:
        return f"no TLS: {report.said(tls)}", "set cert and pkey in its settings, or correct the port"
    return f"cannot be reached: {said}", "correct host and port, and look at the network between"


def _cause(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    """trio says that a stream broke, and why beneath."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error
