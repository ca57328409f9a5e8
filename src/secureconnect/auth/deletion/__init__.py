"""Deletion: the end of an account, asked for by its owner, and what is left of it.

It is asked for with the password, ends every session, and waits `auth.deletion_grace_days`; signing in and
saying so takes it back. After that a pass empties the account's row, removes what belongs to it, has every
room forget the person, and erases what the audit log says of them. The row itself stays, as "deleted user",
since what was said to others is theirs too.
"""
