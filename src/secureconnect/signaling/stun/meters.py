"""What is counted of STUN."""

from __future__ import annotations

from ... import metrics

# result: answered, refused (an attribute nobody knows), unreadable (no Binding request), pace, unsent
_DATAGRAMS = metrics.counter(
    "secureconnect_stun_datagrams_total", "Datagrams read by the STUN server.", ["result"]
)
ANSWERED = _DATAGRAMS.labels("answered")
REFUSED = _DATAGRAMS.labels("refused")
UNREADABLE = _DATAGRAMS.labels("unreadable")
DROPPED_PACE = _DATAGRAMS.labels("pace")
UNSENT = _DATAGRAMS.labels("unsent")
LISTENING = metrics.gauge("secureconnect_stun_listening", "Whether the STUN server listens: 1 or 0.")
