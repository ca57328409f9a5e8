"""Polls: a question with two to ten answers, put to a conversation.

Votes are counted while the conversation is held, so that none is lost or counted twice; those that come
together are counted together, and told of once. What happens to a poll is told with the poll as it then is;
who reads it later is told how it is now.
"""
