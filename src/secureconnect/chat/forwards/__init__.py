"""Forwards: what somebody can read, said again by them elsewhere.

A forward is a message like any other, of whoever forwards. Its metadata says that it is one, and nothing of
where it comes from or who said it there.
"""
