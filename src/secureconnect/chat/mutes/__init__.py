"""Mutes: conversations of which a person wants to hear nothing, for a while or for good.

A mark of their own, as what they have read is: the conversation does not change, and nobody else learns of
it.
"""
