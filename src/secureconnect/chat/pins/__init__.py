"""Pins: messages that a conversation keeps at hand.

A pin goes with its message. It is seen by whoever may see that.
"""
