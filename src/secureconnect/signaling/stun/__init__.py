"""STUN: how a device behind a NAT learns the address others see. The messages (`wire`, also of TURN), and a
server that answers Binding requests over UDP and does nothing else (`server`). Source: RFC 8489.
"""

from .server import StunServer

__all__ = ["StunServer"]
