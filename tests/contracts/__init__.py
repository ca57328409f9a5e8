"""What each protocol of deps/contracts.py promises: one suite, run on every implementation."""
