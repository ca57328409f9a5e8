"""Deletion of a conversation, for all who are in it.

In one unit its members are out: nothing of it is shown to anybody from then on. Its rows go afterwards, a
bounded batch at a time, on whichever node comes by, and may begin again anywhere. Its head stays until every
node has had the time to find in the table that it was deleted.
"""
