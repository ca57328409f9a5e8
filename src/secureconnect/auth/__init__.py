"""Auth: who someone is. Accounts, passwords, devices, sessions and the tokens that prove them.

It answers the gateway's one question, whose token is this, and closes what a session that has ended still
holds open. It decides nothing about conversations; presence, which it shows with a user, is asked from
whoever `connect` names.

`accounts` register, sign in and find people; `sessions` open, refresh, prove and end; `tokens`, `keys`,
`passwords`, `devices` and `revocations` are what they stand on. `proofs` tell whether somebody is who they
say, by password, `totp/` and `lockout/`; `reauthentication` asks that again of who is signed in; `invites/`
let people register where not everybody may; `admin/`, `reports/` and `announcements/` keep order. It writes
the tables users, blocks, devices, sessions, refresh_tokens, revocations, tickets, lockouts, totps,
recovery_codes, invites, bans, reports and announcements.
"""

from .admin.overview import Condition, Figures
from .announcements.store import Announcement
from .reports.reports import Shown
from .revocations import Lack, lacking
from .room import Auth
from .routes import ROUTES, SOCKETS

__all__ = [
    "ROUTES",
    "SOCKETS",
    "Announcement",
    "Auth",
    "Condition",
    "Figures",
    "Lack",
    "Shown",
    "lacking",
]
