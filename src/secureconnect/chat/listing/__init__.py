"""Listing: somebody's conversations, the latest active first.

A first sync brings the newest messages of the top ones beside them, read on the same snapshot: a client that
holds nothing has something to show after one request.
"""
