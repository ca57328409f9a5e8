"""Invites: links that let people register where registration is not open, each for so many and for so long.

Administrators make and take back invites; registering spends one use, in the unit that makes the account. The
code is told when the invite is made, and only its hash is kept.
"""
