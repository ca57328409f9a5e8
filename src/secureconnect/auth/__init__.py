"""Auth: who someone is. Accounts, passwords, devices, sessions and the tokens that prove them.

It answers the gateway's one question, whose token is this, and closes what a session that has ended still
holds open. It decides nothing about conversations; presence, which it shows with a user, is asked from
whoever `connect` names.

`accounts` register, sign in and find people; `sessions` open, refresh, prove and end; `recovery` is
what people prove by mail; `tokens`, `keys`, `passwords`, `devices` and `revocations` are what they stand on.
It writes the tables users, blocks, devices, sessions, refresh_tokens, revocations and tickets, and those of
`recovery`.
"""

from .recovery.letters import Letters
from .revocations import Lack, lacking
from .room import Auth
from .routes import ROUTES, SOCKETS

__all__ = ["ROUTES", "SOCKETS", "Auth", "Lack", "Letters", "lacking"]
