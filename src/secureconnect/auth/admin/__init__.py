"""What administrators see and do: people, bans, roles, how the server is, and the audit log.

`bans` keep people out, `rescue` lets in who has locked themselves out, `removal` deletes accounts, `overview`
looks at it all. Whoever asks must be an administrator by the role of their session; every rule looks for
itself. The command line does the same to a database without a server (`cli/user.py`), as nobody in
particular; what both do are the units of `standing`.
"""
