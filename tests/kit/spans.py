"""Spans kept where they are made, for tests within one process."""

from __future__ import annotations

from secureconnect.tracing import Span


class Spans:
    """tracing.Recorder.  ended: in the order of their ends."""

    def __init__(self, ratio: float = 1.0) -> None:
        self.ratio = ratio
        self.ended: list[Span] = []

    def take(self, span: Span) -> None:
        self.ended.append(span)
