"""The audit log on either database."""

from __future__ import annotations

from kit.databases import on_both

pytest_generate_tests = on_both
