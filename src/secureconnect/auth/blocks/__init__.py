"""Blocks: two people of whom one has blocked the other are apart, whoever it was.

They do not find each other, do not see each other's presence, are no friends, make no group together, and
neither opens nor writes to a direct conversation of theirs. The table is published, and chat joins it.
"""
