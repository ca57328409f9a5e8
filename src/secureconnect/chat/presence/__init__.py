"""Presence and typing: what people see of each other at this moment, and when somebody was last here.

A person is online while a socket of theirs is open, and for a grace afterwards; each socket may say something
else of itself, and what they say together is told (`presence`). Only changes are told, once a second, to who
shares a conversation with them, and only so many: when everybody of a large group comes at once, messages go
first. Nothing of it is stored but when people were last here, to the minute (`sightings`).
"""
