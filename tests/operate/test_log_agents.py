"""What the agents of config/ are told to read is what the server writes, where the compose file has it.

There is no agent at hand. So the stages of promtail's pipeline are done here, on the lines of a real server
as Docker keeps them, and Alloy's must be the same ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from kit.compose import CONFIG, NODES, PRODUCTION, services
from kit.http import plain
from kit.server import Server
from secureconnect.log import _LEVELS as LEVELS

LABELS = {"job", "node", "level", "room"}
JOURNAL, DOCKER = "alloy-journal.config", "alloy.config"

Stage = dict[str, Any]


def scrape() -> dict[str, Any]:
    (job,) = yaml.safe_load((CONFIG / "promtail.yml").read_text())["scrape_configs"]
    found: dict[str, Any] = job
    return found


def stages() -> list[Stage]:
    found: list[Stage] = scrape()["pipeline_stages"]
    return found


def through(line: str, labels: Mapping[str, str]) -> tuple[str, dict[str, str], str] | None:
    """What promtail makes of it: the line, its labels, its time. None if it is dropped."""
    labels, known, at = dict(labels), dict[str, str](), ""
    for stage in stages():
        ((kind, told),) = stage.items()
        if kind == "json":
            known |= dict(picked(line, told["expressions"]))
        elif kind == "labels":
            labels |= {name: known[name] for name in told if known.get(name)}
        elif kind == "labeldrop":
            labels = {name: value for name, value in labels.items() if name not in told}
        elif kind == "match":
            wanted = dict(re.findall(r'(\w+)="(\w*)"', told["selector"]))
            assert told["action"] == "drop"
            if all(labels.get(name, "") == value for name, value in wanted.items()):
                return None
        elif kind == "timestamp":
            assert told["format"] == "RFC3339Nano"
            at = known.get(told["source"], at)
        elif kind == "output":
            line = known[told["source"]]
        else:
            raise AssertionError(f"a stage nobody here knows: {kind}")
    return line, labels, at


def picked(line: str, expressions: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    try:
        whole = json.loads(line)
    except ValueError:  # no JSON: nothing is picked
        return
    for name, path in expressions.items():
        value = whole
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            yield name, str(value)


def kept_by_docker(line: str, node: str | None) -> str:
    attrs = {} if node is None else {"attrs": {"node": node}}
    return json.dumps(
        {"log": f"{line}\n", "stream": "stdout", **attrs, "time": "2026-11-26T10:00:00.123456789Z"}
    )


FROM_FILE = {"job": "secureconnect", "filename": "/var/lib/docker/containers/0a/0a-json.log"}


async def test_every_line_of_a_server_has_its_labels_and_its_time(server: Server) -> None:
    async with plain() as http:
        await http.get(f"{server.url}/v1/server")
        await http.post(f"{server.url}/v1/auth/login", json={"username": "nobody", "password": "a secret"})
    lines = list(server.output)
    assert [line for line in lines if line.startswith("{")]
    assert [line for line in lines if not line.startswith("{")], "text beside the log"
    for line in lines:
        made = through(kept_by_docker(line, "node-a"), FROM_FILE)
        assert made is not None
        text, labels, at = made
        assert text == f"{line}\n"
        assert labels["node"] == "node-a"
        assert labels.keys() <= LABELS
        assert "a secret" not in text
        if line.startswith("{"):
            said = json.loads(line)
            assert labels.keys() == LABELS
            assert (labels["level"], labels["room"], at) == (
                said["level"],
                said["module"],
                said["timestamp"],
            )
            assert labels["level"] in LEVELS
            assert datetime.fromisoformat(at).tzinfo is not None


def test_what_other_containers_write_is_left_out() -> None:
    assert through(kept_by_docker("SELECT 1", None), FROM_FILE) is None
    assert services(PRODUCTION)["postgres"].get("labels") is None


def blocks(file: str, kind: str) -> list[str]:
    """The insides of the blocks of Alloy's file that begin with these words."""
    text = re.sub(r"^\s*//.*$", "", (CONFIG / file).read_text(), flags=re.MULTILINE)
    return re.findall(rf"^\s*{re.escape(kind)} .*?\{{\n(.*?)^\s*\}}$", text, re.MULTILINE | re.DOTALL)


def pairs(text: str) -> dict[str, str]:
    """Of `{a = "b", c = "d"}`."""
    inside = re.search(r"\{(.*)\}", text)
    assert inside is not None
    return dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', inside[1]))


def expressions(file: str) -> list[dict[str, str]]:
    return [pairs(block) for block in blocks(file, "stage.json")]


def labels(file: str) -> list[dict[str, str]]:
    return [pairs(block) for block in blocks(file, "stage.labels")]


def test_alloy_does_what_promtail_does() -> None:
    told = [next(iter(stage.items())) for stage in stages()]
    assert expressions(DOCKER) == [each["expressions"] for kind, each in told if kind == "json"]
    assert labels(DOCKER) == [each for kind, each in told if kind == "labels"]
    assert expressions(JOURNAL) == expressions(DOCKER)[1:]
    assert labels(JOURNAL) == labels(DOCKER)[1:]
    for file, times in ((DOCKER, 2), (JOURNAL, 1)):
        assert len(blocks(file, "stage.timestamp")) == times
        assert all(
            'format            = "RFC3339Nano"' in each or 'format = "RFC3339Nano"' in each
            for each in blocks(file, "stage.timestamp")
        )
    (match,) = blocks(DOCKER, "stage.match")
    (selector,) = (each["selector"] for kind, each in told if kind == "match")
    assert json.dumps(selector) in match
    assert 'action   = "drop"' in match


def test_both_read_where_docker_writes_and_send_to_where_loki_is() -> None:
    path = scrape()["static_configs"][0]["labels"]["__path__"]
    assert f'__path__ = "{path}"' in (CONFIG / DOCKER).read_text()
    agent = services(PRODUCTION)["alloy"]
    folders = {each.split(":")[1]: each for each in agent["volumes"]}
    mounted = folders[str(PurePosixPath(path).parent.parent)]
    assert mounted.split(":")[0] == "/var/lib/docker/containers"
    assert mounted.endswith(":ro")
    port = yaml.safe_load((CONFIG / "loki.yml").read_text())["server"]["http_listen_port"]
    (promtail,) = yaml.safe_load((CONFIG / "promtail.yml").read_text())["clients"]
    (alloy,) = re.findall(r'url = "(.*)"', (CONFIG / DOCKER).read_text())
    assert alloy == promtail["url"]
    assert urlsplit(alloy).netloc == f"loki:{port}"
    assert set(agent["networks"]) & set(services(PRODUCTION)["loki"]["networks"])


@pytest.mark.parametrize("node", NODES)
def test_docker_puts_a_node_s_name_on_its_lines(node: str) -> None:
    service = services(PRODUCTION)[node]
    assert service["labels"] == {"node": node}
    assert service["logging"]["driver"] == "json-file"
    assert "node" in service["logging"]["options"]["labels"].split(",")


def test_the_journal_is_the_unit_s() -> None:
    assert (CONFIG / "secureconnect.service").is_file()
    assert '"_SYSTEMD_UNIT=secureconnect.service"' in (CONFIG / JOURNAL).read_text()
