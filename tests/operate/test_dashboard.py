"""The dashboard: Grafana can import it, Prometheus can read its expressions, and what they ask for exists."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kit.scrape import declared

from .test_alerts import CONFIG, passes

ROWS = ["HTTP", "WebSocket", "Database", "Redis", "Storage", "Calls", "Messages", "Degraded state"]
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*"}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDE = 24
OTHERS = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total"}


@pytest.fixture
def dashboard() -> dict[str, Any]:
    return read()


def read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CONFIG / "grafana-dashboard.json").read_text("utf-8"))
    return found


def expressions() -> list[tuple[str, str]]:
    """The title of each panel with what it asks, as Grafana sends it."""
    found = []
    for panel in read()["panels"]:
        for target in panel.get("targets", []):
            asked = target["expr"]
            for name, value in VARIABLES.items():
                asked = asked.replace(name, value)
            found.append((panel["title"], asked))
    return found


def test_grafana_can_import_it(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert [panel["title"] for panel in panels if panel["type"] == "row"] == ROWS
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    source, nodes = dashboard["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert (nodes["name"], nodes["datasource"]) == ("instance", DATASOURCE)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= WIDE
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == DATASOURCE, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        steps = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        assert steps[0] is None, panel["title"]
        assert steps[1:] == sorted(steps[1:]), panel["title"]
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters), panel["title"]
        assert {json.dumps(target["datasource"]) for target in panel["targets"]} == {json.dumps(DATASOURCE)}


def test_prometheus_reads_every_expression(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{place}", "expr": asked} for place, (_, asked) in enumerate(expressions())]
    file = tmp_path / "panels.json"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    passes("promtool", "check", "rules", file)


def test_every_panel_asks_for_metrics_that_there_are() -> None:
    named = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for _, asked in expressions()
        for name in re.findall(r"[a-z_]+(?=\{)", asked)
    }
    assert named > OTHERS
    assert named <= declared() | OTHERS
