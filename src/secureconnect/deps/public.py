"""Which addresses are on the internet, and not next door."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv6Address

NAT64 = ipaddress.ip_network("64:ff9b::/96")
# next door, too, whatever Python 3.11 takes them for
LOCAL = ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("fec0::/10")


def is_public(address: str) -> bool:
    """Whether it is reached over the internet, and is not one of ours in disguise."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    inner = _inside(ip) if isinstance(ip, IPv6Address) else None
    return _is_global(ip if inner is None else inner)


def _inside(ip: IPv6Address) -> IPv4Address | None:
    """The address of the old internet that it stands for."""
    if ip in NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)


def _is_global(ip: IPv4Address | IPv6Address) -> bool:
    if any(ip in network for network in LOCAL):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)
