"""The second factor: codes of an authenticator app (RFC 6238), and recovery codes for when it is lost.

`codes` judges what is sent with a password, in the unit that would accept it; `totp` turns the second factor
on and off. The shared secret is sealed with the master key, recovery codes are kept as HMACs.
"""
