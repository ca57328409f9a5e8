"""Backups: a folder of them, made beside a running server, and an installation made of one.

`make` copies the database at one moment, table by table, and then the files that belong to it; `restore`
makes an installation of that, in either world whichever it came from, and `check` does so in a scratch place.
`folder` is where they lie and share their files, `manifest` what each says of itself, `sheets` rows in a
file, `streams` bytes in one, sealed or not. `schedule` makes them on a running server, and `keep` removes
those that are too many.
"""

from .check import check
from .folder import Folder, Refused, read_passphrase
from .keep import prune
from .load import require_known
from .make import Made, Source, make
from .reading import Opened, read_all
from .restore import Restored, clear, clear_file, require_place, restore
from .streams import Damaged

__all__ = [
    "Damaged",
    "Folder",
    "Made",
    "Opened",
    "Refused",
    "Restored",
    "Source",
    "check",
    "clear",
    "clear_file",
    "make",
    "prune",
    "read_all",
    "read_passphrase",
    "require_known",
    "require_place",
    "restore",
]
