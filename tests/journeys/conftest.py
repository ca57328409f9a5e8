"""Every journey with one server is made in both worlds: on the embedded twins, and on real backends.

Those of several nodes need what these share; a test that asks for one world says why beside its mark.
"""

from __future__ import annotations

from kit.worlds import in_both

pytest_generate_tests = in_both
