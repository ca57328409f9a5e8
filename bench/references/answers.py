"""The answers of the gateway, as the references in Python make them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime


def envelope(data: dict[str, object]) -> dict[str, object]:
    timestamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
    return {
        "success": True,
        "data": data,
        "meta": {"timestamp": timestamp, "request_id": str(uuid.uuid4())},
    }
