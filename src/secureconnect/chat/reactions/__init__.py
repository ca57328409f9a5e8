"""Reactions: emoji that people put on messages.

A message's row says whether it has any, so that reading history costs nothing more where there are none. The
event carries how many react so after it: whoever applies it twice is no further off than before.
"""
