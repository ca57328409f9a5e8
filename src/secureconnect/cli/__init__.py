"""The command line: one file for each command. It talks to people and holds no rules.

Commands import what they need when they run, so that `serve` loads nothing of the others.
"""
