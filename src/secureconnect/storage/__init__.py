"""Storage: files. Uploads, what they take of an account's quota, and the addresses for getting them back.

Content goes past this process where it can: straight into the store, at an address signed here. What lies in
the folder, or in this node's spool while the store is away, passes through the room's own routes. Who may see
a file is decided in one place, `files.py`.

`uploads` take files in, and `growing` what a neighbour records; `files` show, hand out and delete them;
`sharing` lets others read them; `addresses` are the signed ones; `sweeper` removes what was given up or
deleted, and notes what has left the spool; `orphans` and `recount` look for what should not be; `contents`
is what a backup copies. It writes the
tables files, quotas and file_shares.
"""

from .growing import Growing
from .room import Storage
from .routes import ROUTES
from .sharing import Sharing

__all__ = ["ROUTES", "Growing", "Sharing", "Storage"]
