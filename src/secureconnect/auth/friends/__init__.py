"""Friends: two people who have both said so.

Each says it in a row of their own, so that two requests that cross make friends, and nobody can be made one.
"""
