"""Faults, one after another by a seeded plan, under load on two nodes; and what must hold at the end of each.

`plan` says what breaks, `load` who writes meanwhile, `deeds` what else they do, `calls` who is in a call,
`witness` what each client saw, `verdict` whether that is right, `harness` runs it all. `scripts/chaos` runs
it for long, `test_chaos.py` for a minute.
"""
