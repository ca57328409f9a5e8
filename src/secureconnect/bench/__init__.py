"""The speed of an installation, asked of it from outside; `cli/bench.py` shows it.

It works against any server by its URL alone, and knows nothing of how that runs. Plain sockets and one epoll
loop, no Trio: the load must be lighter than what it measures. Every answer is checked, for a broken server
must be an error and not a figure.
"""
