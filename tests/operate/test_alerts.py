"""What Prometheus and Alertmanager read is valid, and each alert fires when it should and not before."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit.balancer import ADDRESSES
from kit.scrape import declared
from secureconnect.config import Config
from secureconnect.deps.guard import TITLES

ROOT = Path(__file__).parent.parent.parent
CONFIG = ROOT / "config"
NODE = 'job="secureconnect",instance="a"'
DAY_S = 86_400
GB = 1024**3


def read(name: str) -> Any:
    return yaml.load((CONFIG / name).read_text("utf-8"), Loader=yaml.CSafeLoader)


def alerts() -> dict[str, dict[str, Any]]:
    rules = [rule for group in read("alerts.yml")["groups"] for rule in group["rules"]]
    return {rule["alert"]: rule for rule in rules if "alert" in rule}


def passes(program: str, *arguments: str | Path) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program}")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass(frozen=True)
class Case:
    """fires, calm: series, with values as promtool writes them, one each `every`; looked at `at`."""

    alert: str
    fires: dict[str, str]
    calm: dict[str, str]
    at: str = "10m"
    every: str = "1m"

    def tests(self) -> list[dict[str, Any]]:
        expr = f'count(ALERTS{{alertname="{self.alert}",alertstate="firing"}}) or vector(0)'
        return [
            {
                "name": f"{self.alert} {'fires' if firing else 'does not fire'}",
                "interval": self.every,
                "input_series": [{"series": each, "values": values} for each, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": expr,
                        "eval_time": self.at,
                        "exp_samples": [{"labels": "{}", "value": firing}],
                    }
                ],
            }
            for firing, series in ((1, self.fires), (0, self.calm))
        ]


def away(dependency: str) -> tuple[dict[str, str], dict[str, str]]:
    """For ten minutes and more; and back in time."""
    series = f'dependency_up{{{NODE},dependency="{dependency}"}}'
    return {series: "1x2 0x40"}, {series: "1x2 0 1x40"}


def requests(failed: int, well: int) -> dict[str, str]:
    """So many more a minute."""
    return {
        f'http_requests_total{{{NODE},status="503"}}': f"0+{failed}x60",
        f'http_requests_total{{{NODE},status="200"}}': f"0+{well}x60",
    }


def not_ready(asked: int) -> dict[str, str]:
    labels = f'{NODE},service="api-gateway",route="/readyz",status="503"'
    return {f"http_requests_total{{{labels}}}": f"0+{asked}x60"}


def slow(slow: int, quick: int, route: str = "/v1/messages") -> dict[str, str]:
    labels = f'{NODE},service="chat-service",method="GET",route="{route}"'
    return {
        f'http_request_duration_seconds_bucket{{{labels},le="0.5"}}': f"0+{quick}x600",
        f"http_request_duration_seconds_count{{{labels}}}": f"0+{slow + quick}x600",
    }


def gauge(name: str, fires: str, calm: str, labels: str = "") -> tuple[dict[str, str], dict[str, str]]:
    series = f"{name}{{{NODE}{labels}}}"
    return {series: fires}, {series: calm}


CASES = [
    Case("NodeDown", *gauge("up", "1x2 0x20", "1x2 0 1x20")),
    Case("NoNodes", {'up{job="another"}': "1x20"}, {f"up{{{NODE}}}": "0x20"}),
    Case("NodeNotReady", *gauge("secureconnect_ready", "0x20", "1x8 0 1x20")),
    Case("ModuleDown", *gauge("secureconnect_room_up", "1x2 0x20", "1x9 0 1x20", ',room="chat"')),
    Case("ModuleCrashes", *gauge("secureconnect_room_restarts_total", "0x5 1x20", "3x20", ',room="chat"')),
    Case("FaultsOfOurs", *gauge("secureconnect_gateway_faults_total", "0x5 1x20", "1x20", ',fault="send"')),
    Case("AuditChainBroken", *gauge("secureconnect_audit_chain_whole", "0x20", "1x20")),
    Case(
        "PasswordsGuessed",
        *gauge("auth_failures_total", "0+90x60", "0+30x60", ',kind="login",reason="credentials"'),
        at="30m",
    ),
    Case(
        "CertificateEnds",
        *gauge(
            "secureconnect_gateway_certificate_expires_seconds",
            f"{13 * DAY_S}x200",
            f"{15 * DAY_S}x200",
        ),
        at="2h",
    ),
    Case(
        "CertificateEndsNow",
        # 0: there is no TLS
        *gauge("secureconnect_gateway_certificate_expires_seconds", f"{DAY_S}x20", "0x20"),
    ),
    Case("PostgresAway", *away("postgres")),
    Case("RedisAway", *away("redis")),
    Case("MinioAway", *away("minio")),
    Case("OutsideAway", *away("smtp"), at="20m"),
    Case(
        "PoolNearlyFull",
        {
            f'db_connections_active{{{NODE},role="writer"}}': "5x20",
            f'db_connections_active{{{NODE},role="reader"}}': "3x20",
            f"db_connections_limit{{{NODE}}}": "10x20",
        },
        {
            f'db_connections_active{{{NODE},role="writer"}}': "4x5 10 4x20",
            f'db_connections_active{{{NODE},role="reader"}}': "2x20",
            f"db_connections_limit{{{NODE}}}": "10x20",
        },
        at="12m",
    ),
    Case(
        "JournalWaits",
        {
            f"secureconnect_journal_records{{{NODE}}}": "5x20",
            f"secureconnect_journal_oldest_age_seconds{{{NODE}}}": "0+60x20",
        },
        {
            f"secureconnect_journal_records{{{NODE}}}": "5x8 0x20",
            f"secureconnect_journal_oldest_age_seconds{{{NODE}}}": "0+60x8 0x20",
        },
        at="15m",
    ),
    Case("JournalFillsUp", *gauge("secureconnect_journal_bytes", f"{GB}x20", "1000x20")),
    Case("SpoolWaits", *gauge("secureconnect_spool_objects", "2x60", "2x20 0x60"), at="40m"),
    Case("DiskLow", *gauge("secureconnect_disk_free_bytes", f"{GB // 2}x20", f"{2 * GB}x20")),
    Case(
        "DiskFillsUp",
        {
            f"secureconnect_disk_free_bytes{{{NODE}}}": f"{40 * GB}-{GB // 7}x130",
            f"secureconnect_disk_size_bytes{{{NODE}}}": f"{100 * GB}x130",
        },
        {  # as slowly as that it takes a week
            f"secureconnect_disk_free_bytes{{{NODE}}}": f"{40 * GB}-{GB // 50}x130",
            f"secureconnect_disk_size_bytes{{{NODE}}}": f"{100 * GB}x130",
        },
        at="8h",
        every="4m",
    ),
    Case("BackupFails", *gauge("secureconnect_backup_failures_total", "0x5 1x20", "1x20")),
    Case(
        "BackupOld",
        # the last hour of the series' first day; 0: there is no schedule
        *gauge("secureconnect_backup_due_timestamp_seconds", "82800x650", "0x650"),
        at="50h",
        every="5m",
    ),
    Case("ErrorRate", requests(6, 94), requests(4, 96) | not_ready(100), at="15m"),
    Case("RequestsSlowFast", slow(20, 80), slow(20, 80, "/v1/storage/objects/{token}"), at="30m"),
    Case("RequestsSlowLong", slow(8, 92), slow(4, 96), at="8h"),
    Case(
        "LoopLate",
        {
            f'secureconnect_loop_lag_seconds_bucket{{{NODE},le="0.1"}}': "0+200x20",
            f'secureconnect_loop_lag_seconds_bucket{{{NODE},le="0.25"}}': "0+240x20",
            f'secureconnect_loop_lag_seconds_bucket{{{NODE},le="+Inf"}}': "0+240x20",
        },
        {
            f'secureconnect_loop_lag_seconds_bucket{{{NODE},le="0.1"}}': "0+230x20",
            f'secureconnect_loop_lag_seconds_bucket{{{NODE},le="0.25"}}': "0+240x20",
            f'secureconnect_loop_lag_seconds_bucket{{{NODE},le="+Inf"}}': "0+240x20",
        },
    ),
    Case(
        "CallsRefused",
        {f'secureconnect_deps_refused_total{{{NODE},dependency="minio",reason="busy"}}': "0+1x20"},
        {f'secureconnect_deps_refused_total{{{NODE},dependency="minio",reason="open"}}': "0+1x20"},
    ),
    Case(
        "ConnectionsRefused",
        *gauge("secureconnect_gateway_connections_refused_total", "0+1x20", "3x20", ',reason="OVERLOADED"'),
    ),
]


def test_prometheus_takes_its_files() -> None:
    passes("promtool", "check", "config", CONFIG / "prometheus.yml")
    passes("promtool", "check", "rules", "--lint-fatal", CONFIG / "alerts.yml")


def test_alertmanager_takes_its_file() -> None:
    file = CONFIG / "alertmanager.yml"
    passes("amtool", "check-config", file)
    for severity, receiver in (("critical", "on-call"), ("warning", "operators")):
        routed = ("config", "routes", "test", f"--config.file={file}", f"--verify.receivers={receiver}")
        passes("amtool", *routed, f"severity={severity}")


def test_each_alert_fires_and_does_not_fire(tmp_path: Path) -> None:
    assert [case.alert for case in CASES] == list(alerts())
    files = []
    for unit, often in (("m", "1m"), ("h", "5m")):  # hours of minutes take seconds
        tests = [test for case in CASES if case.at.endswith(unit) for test in case.tests()]
        suite = {"rule_files": [str(CONFIG / "alerts.yml")], "evaluation_interval": often, "tests": tests}
        files.append(tmp_path / f"{often}.json")
        files[-1].write_text(json.dumps(suite))
    passes("promtool", "test", "rules", *files)


def test_each_alert_says_what_to_do() -> None:
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        said = rule["annotations"]
        assert said.keys() == {"summary", "description", "runbook_url"}, name
        page, _, anchor = said["runbook_url"].partition("#")
        assert anchor in anchors(ROOT / page), (name, said["runbook_url"])


def test_each_alert_stands_in_the_documentation() -> None:
    page = (ROOT / "docs" / "operate.md").read_text("utf-8")
    section = page[page.index("## Monitoring") : page.index("## Administrators")]
    assert set(re.findall(r"`([A-Z]\w+)`", section)) == alerts().keys()


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_they_speak_of_what_there_is() -> None:
    text = (CONFIG / "alerts.yml").read_text("utf-8")
    named = {word for rule in alerts().values() for word in re.findall(r"[a-z_]+_[a-z_]+", rule["expr"])}
    known = declared() | {f"{name}_bucket" for name in declared()} | {f"{name}_count" for name in declared()}
    functions = {"avg_over_time", "histogram_quantile", "predict_linear"}
    sums = {"pool_used", "ratio_rate"}
    assert named - known - functions - sums == set()
    assert set(re.findall(r'dependency="(\w+)"', text)) <= TITLES.keys()


def test_they_agree_with_the_settings_and_with_each_other() -> None:
    config = Config()
    rule = alerts()["JournalFillsUp"]["expr"]
    mb, hours = re.findall(r"> (\d+) \* ", rule)
    assert (int(mb) * 2, int(hours) * 3600 * 2) == (config.journal.limit_mb, config.journal.age_s)
    assert 4 * config.sqlite.disk_reserve_mb * 1024**2 < GB, "DiskLow fires long before writing is refused"
    [job] = read("prometheus.yml")["scrape_configs"]
    assert job["job_name"] == "secureconnect"
    assert job["static_configs"] == [{"targets": list(ADDRESSES)}]
    for rule in read("alertmanager.yml")["inhibit_rules"]:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            label, pattern = re.fullmatch(r'(\w+)!?=~?"(.*)"', matcher).groups()  # type: ignore[union-attr]
            if label == "alertname":
                assert [name for name in alerts() if re.fullmatch(pattern, name)], matcher
