"""The cellar: every outside system, and its local twin, behind the small protocols of `contracts`.

Rooms see `contracts` only. `policy.open_deps` decides what stands behind each protocol.
"""
