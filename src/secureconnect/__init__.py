"""SecureConnect: messaging, calls and files in one light process.

`app.py` is the front door: it opens what lies outside (deps/), builds the rooms and nests the nurseries.
docs/architecture.md is the map of the house.
"""

__version__ = "0.1.0"
