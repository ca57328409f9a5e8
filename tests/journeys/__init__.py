"""Whole stories over real servers and real sockets."""
