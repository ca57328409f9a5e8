"""Recovery: what people prove by mail. That an address is theirs, before an account begins or an address
changes; and, who they are, when they have lost their password.

`registrations` are accounts that wait for their address to be confirmed; `recovery` confirms and changes
addresses and resets passwords; `letters` is what people are written. Tokens are random, used once, and
kept as their SHA-256. It writes the tables mail_tokens and registrations, and in users the
address, whether it is confirmed, and the password.

What anyone may ask tells nothing about who has an account: the answer is the same, and so is the work behind
it. Where there is nobody to write to, the same rows are written, of nobody.
"""
