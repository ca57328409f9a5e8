"""Mentions: whom a message names, so that it concerns them.

A message says so itself, in `metadata.mentions`, a list of user ids; what is kept here is for those who ask
what concerns somebody. All of them are members when they are first named, and not its sender. A message
without any costs nothing.
"""
