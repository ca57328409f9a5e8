"""`python -m secureconnect`."""

from .cli.main import run

run()
