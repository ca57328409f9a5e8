"""Versions: what a message said before it was edited.

Whoever may see the message may see them. They go with it, and beyond so many of one message the oldest go.
"""
