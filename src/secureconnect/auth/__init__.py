"""Auth: who someone is. Accounts, passwords, devices, sessions and the tokens that prove them.

It answers the gateway's one question, whose token is this, and closes what a session that has ended still
holds open. It decides nothing about conversations; presence, which it shows with a user, is asked from
whoever `connect` names.

`accounts` register, sign in and find people; `sessions` open, refresh, prove and end; `recovery/` is what
people prove by mail; `tokens`, `keys`,
`passwords`, `devices` and `revocations` are what they stand on. `proofs` tell whether somebody is who they
say, by password, `totp/` and `lockout/`; `reauthentication` asks that again of who is signed in; `invites/`
let people register where not everybody may. What people decide about themselves and each other are folders,
too: `profile/`, `friends/`, `blocks/`, `deletion/` and `export/`; so is what keeps order: `admin/`,
`reports/` and `announcements/`. `devicekeys/` keeps the public keys of devices and what they send each
other; `restored` is what ends when all comes back from a backup. Which tables it writes stands in
`tests/test_layout.py`.
"""

from .admin.overview import Condition, Figures
from .admin.standing import is_banned
from .announcements.store import Announcement
from .devicekeys.company import note_departures
from .recovery.letters import Letters
from .reports.reports import Shown
from .restored import close_doors
from .revocations import Lack, lacking
from .room import Auth
from .routes import ROUTES, SOCKETS
from .store import signed_in

__all__ = [
    "ROUTES",
    "SOCKETS",
    "Announcement",
    "Auth",
    "Condition",
    "Figures",
    "Lack",
    "Letters",
    "Shown",
    "close_doors",
    "is_banned",
    "lacking",
    "note_departures",
    "signed_in",
]
