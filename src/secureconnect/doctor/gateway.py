"""The way in: file descriptors, the port, TLS, and the addresses people and proxies use."""

from __future__ import annotations

import errno
import ipaddress
import re
import resource
import socket
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import trio
from cryptography import x509

from ..config import Config, GatewayConfig
from ..gateway.tls import Certificates
from ..settings import BadSetting
from .findings import Report, count

LIVEZ_S = 3.0
OWN_DESCRIPTORS = 64  # libraries, log, listener, event loop, threads
SOON_DAYS = 14
WIDE = {4: 8, 6: 16}  # networks with a shorter prefix are no proxies of ours


async def check_descriptors(config: Config, report: Report) -> None:
    name = "file_descriptors"
    holder = _server(Path(config.data_dir))
    soft, whose = _limit(holder)
    need = config.gateway.max_connections + OWN_DESCRIPTORS + 3 * (config.sqlite.readers + 2)
    need += config.postgres.connections + config.redis.connections + config.minio.connections
    most = config.gateway.max_connections
    told = f"{whose} may open {soft}; gateway.max_connections = {most} needs {need}"
    if soft >= need:
        report.ok(name, told)
    else:
        report.warn(
            name,
            told,
            f"start the server under `ulimit -n {need}` (systemd: LimitNOFILE={need}), or lower"
            " gateway.max_connections",
        )


def _server(folder: Path) -> int | None:
    """The process that holds the data folder, if one does.

    Only looked at: to try the lock would be to hold it, and to refuse a server that starts in that moment.
    """
    try:
        inode = str((folder / "lock").stat().st_ino)
        for line in Path("/proc/locks").read_text("ascii").splitlines():
            words = line.split()
            if "FLOCK" in words and words[-3].rpartition(":")[2] == inode:
                return int((folder / "lock").read_text("ascii"))
    except (OSError, ValueError):
        pass
    return None


def _limit(process: int | None) -> tuple[int, str]:
    """How many descriptors: of the server that runs, else of one that were started here."""
    if process is not None:
        try:
            text = Path(f"/proc/{process}/limits").read_text("ascii")
        except OSError:
            pass
        else:
            if found := re.search(r"^Max open files\s+(\d+)", text, re.MULTILINE):
                return int(found[1]), f"the running server (process {process})"
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0], "a process started here"


async def check_port(config: Config, report: Report) -> None:
    name, at = "port", config.gateway
    if at.port == 0:
        report.ok(name, "any free one")
        return
    where = f"{at.host} port {at.port}"
    try:
        found = await trio.socket.getaddrinfo(at.host, at.port, type=socket.SOCK_STREAM)
        with socket.socket(found[0][0], socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(found[0][4])
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            await _ask_the_holder(at, where, report)
        elif exc.errno == errno.EACCES:
            report.fail(
                name,
                f"{where} is not for this user",
                "choose a port from 1024 on, or give the service CAP_NET_BIND_SERVICE",
            )
        else:
            report.fail(
                name,
                f"{where} is not an address of this machine: {report.said(exc.strerror or exc)}",
                "set gateway.host to one of its addresses, or to 0.0.0.0 for all",
            )
    else:
        report.ok(name, f"{where} is free")


async def _ask_the_holder(at: GatewayConfig, where: str, report: Report) -> None:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(at.host, at.host)  # noqa: S104
    host = f"[{host}]" if ":" in host else host
    url = f"{'https' if at.tls_certificate else 'http'}://{host}:{at.port}/livez"
    try:
        # the name in the certificate is not this address: checked on its own
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=LIVEZ_S) as http:  # noqa: S501
            with trio.fail_after(LIVEZ_S):
                answer = await http.get(url)
    except (httpx.HTTPError, trio.TooSlowError, OSError):
        found = "is held by a program that does not answer /livez"
    else:
        if answer.status_code == 200:
            report.ok("port", f"{where} is held by a running server, which answers /livez")
            return
        found = f"is held by a program that answers /livez with {answer.status_code}"
    report.fail("port", f"{where} {found}", "end that program, or set gateway.port to a free one")


async def check_tls(config: Config, report: Report) -> None:
    at = config.gateway
    if not at.tls_certificate and not at.tls_key:
        report.ok("tls", "none of its own")
        return
    await trio.to_thread.run_sync(_look_at_tls, at, report, abandon_on_cancel=True)


def _look_at_tls(at: GatewayConfig, report: Report) -> None:
    try:
        Certificates(at)
        leaf = x509.load_pem_x509_certificates(Path(at.tls_certificate).read_bytes())[0]
    except (BadSetting, OSError, ValueError) as exc:
        report.fail(
            "tls",
            report.said(exc),
            "set gateway.tls_certificate and gateway.tls_key to a certificate and its key, in PEM, readable"
            " for the server's user",
        )
        return
    days = (leaf.not_valid_after_utc - datetime.now(UTC)).days
    ends = f"ends on {leaf.not_valid_after_utc:%Y-%m-%d}"
    renew = "renew it, then send the server SIGHUP"
    if days < 0:
        report.fail("tls", f"the certificate is over: it {ends.replace('ends', 'ended')}", renew)
    elif leaf.not_valid_before_utc > datetime.now(UTC):
        report.fail(
            "tls",
            f"the certificate is valid only from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on",
            "set this machine's clock, or wait",
        )
    elif days < SOON_DAYS:
        report.warn("tls", f"the certificate {ends}, in {count(days, 'day')}", renew)
    else:
        report.ok("tls", f"certificate and key belong together; it {ends}, in {count(days, 'day')}")
    host = urlsplit(at.public_url).hostname if at.public_url else None
    if host and not _names(leaf, host):
        report.fail(
            "tls.name",
            f"the certificate is not for {host}, the host of gateway.public_url",
            "get a certificate that names it, or set gateway.public_url to a name it has",
        )


def _names(leaf: x509.Certificate, host: str) -> bool:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        return ipaddress.ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        pass
    parent = f"*.{host.partition('.')[2]}"
    return bool(
        {host.lower(), parent.lower()} & {each.lower() for each in names.get_values_for_type(x509.DNSName)}
    )


async def check_addresses(config: Config, report: Report) -> None:
    """public_url, and the proxies that are believed."""
    at = config.gateway
    before = len(report.findings)
    name = "addresses"
    proxied = bool(at.trusted_proxies or at.proxy_protocol_from)
    url = urlsplit(at.public_url)
    if url.scheme == "https" and not at.tls_certificate and not proxied:
        report.warn(
            name,
            "gateway.public_url is https, this server has no TLS, and no proxy is trusted",
            "name the proxy in gateway.trusted_proxies, or all people share its address in limits and audit",
        )
    if url.scheme == "http" and not _is_local(url.hostname or ""):
        report.warn(
            name,
            "gateway.public_url is http: passwords and messages cross the network readable",
            "put TLS in front, or set gateway.tls_certificate, and make the URL https",
        )
    if url.scheme == "http" and at.tls_certificate:
        report.warn(name, "gateway.public_url is http, and the server speaks TLS", "make the URL https")
    if not at.public_url and not _is_local(at.host):
        report.warn(
            name,
            f"gateway.public_url is empty, and the server listens on {at.host}",
            "set it to the URL people use, like https://chat.example.org",
        )
    if not _is_local(at.host) and not at.tls_certificate and not proxied and url.scheme != "http":
        report.warn(
            name,
            f"the server listens on {at.host} without TLS, and trusts no proxy",
            "set gateway.tls_certificate, or gateway.trusted_proxies if a proxy does TLS",
        )
    for key, networks in (
        ("trusted_proxies", at.trusted_proxies),
        ("proxy_protocol_from", at.proxy_protocol_from),
    ):
        for each in networks:
            network = ipaddress.ip_network(each, strict=False)
            if network.prefixlen < WIDE[network.version]:
                report.warn(
                    name,
                    f"gateway.{key} has {each}: nearly everybody may claim to be anybody",
                    "name the proxies alone",
                )
    if len(report.findings) == before:
        told = at.public_url or f"links are paths; the server listens on {at.host}"
        report.ok(name, f"{told}; {'proxies are named' if proxied else 'no proxy'}")


async def check_name(config: Config, report: Report) -> None:
    """Whether the name people use leads somewhere, seen from here."""
    url = config.gateway.public_url
    host = urlsplit(url).hostname or ""
    if not host or _is_address(host):
        report.ok("dns", "no name to look up")
        return
    try:
        found = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as exc:
        report.fail(
            "dns",
            f"{host}, of gateway.public_url, has no address: {report.said(exc.strerror or exc)}",
            "enter an A or AAAA record for it, or correct gateway.public_url",
        )
        return
    addresses = dict.fromkeys(str(each[4][0]) for each in found)
    report.ok("dns", f"{host} is {', '.join(addresses)}; what people reach there: doctor --url {url}")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
