"""What a server says when it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import msgspec


class ApiError(Exception):
    """The server refused.

    status: of HTTP; for a WebSocket frame, the one its code has over HTTP.  code: of the error table.
    retry_after_s: when trying again makes sense, or None.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        retry_after_s: float | None = None,
        request_id: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s
        self.request_id = request_id
        self.details = dict(details or {})

    @classmethod
    def of_reply(cls, status: int, headers: Mapping[str, str], body: bytes) -> Self:
        """headers: names in lower case.  body: an envelope, or whatever a proxy in between made of it."""
        try:
            error = msgspec.json.decode(body)["error"]
            code, message, details = error["code"], error["message"], error.get("details")
        except (msgspec.DecodeError, KeyError, TypeError):
            code, message, details = "UNREADABLE", "The answer is not one of this server's.", None
        after = headers.get("retry-after", "")
        return cls(
            status,
            code,
            message,
            float(after) if after.isdigit() else None,
            headers.get("x-request-id"),
            details,
        )
