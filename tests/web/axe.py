"""What axe-core has against a page, or what is open on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import playwright.sync_api as playwright
import pytest

AXE = Path(__file__).parent / "node_modules/axe-core/axe.min.js"

RUN = """async ([within, rules]) => {
  const how = { resultTypes: ["violations"], preload: { assets: ["media"] } }; // no rule of ours reads styles
  if (rules) how.runOnly = { type: "rule", values: rules };
  return (await axe.run(within ?? document, how)).violations;
}"""


def bring(page: playwright.Page) -> None:
    """Its script, into a page that was loaded with `bypass_csp`."""
    if not AXE.exists():
        pytest.skip("no axe-core: `scripts/test` installs it")
    page.add_script_tag(path=AXE)


def violations(page: playwright.Page, within: str | None = None, rules: list[str] | None = None) -> list[str]:
    """As axe names them, each with the elements.  within: a selector.  rules: not all of them."""
    told: list[dict[str, Any]] = page.evaluate(RUN, [within, rules])
    return [f"{each['id']}: {[node['html'][:200] for node in each['nodes']]}" for each in told]
