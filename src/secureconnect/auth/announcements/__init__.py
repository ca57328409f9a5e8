"""Announcements: what administrators tell everybody.

Whoever is connected hears it at once, on every node; whoever comes later finds it in the list, which is the
truth: what is told to sockets may be lost with a connection.
"""
