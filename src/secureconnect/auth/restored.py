"""What becomes of sessions, keys and tokens when an installation comes back from a backup.

Since that was made somebody may have signed out, lost a device, or used up a key or a link: nothing that
opens a door is taken over.
"""

from __future__ import annotations

from ..deps.contracts import Tx
from ..node import Secrets
from . import keys, store
from .devicekeys import store as device_keys
from .recovery import store as mailed


async def close_doors(tx: Tx, secrets: Secrets, now_us: int) -> None:
    """Every session and ticket, all that was mailed, every one-time key and the keys that sign tokens end."""
    await store.end_all(tx, now_us)
    await mailed.end_all(tx, now_us)
    await device_keys.purge(tx, now_us)
    await keys.replace(tx, secrets, now_us)
