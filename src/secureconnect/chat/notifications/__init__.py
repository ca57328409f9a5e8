"""Notifications: what a person should know of, wherever they look next.

They are made after the commit of what they tell of, by a pass that follows each conversation's `change`
(`notifier`), so that no message waits for them. What somebody has read meanwhile, wherever, is none.
Devices are woken for them (`pushes`), and for what is said in groups without any (`rings`).
"""
