"""The compose files are what Compose takes, agree with the settings and with each other, and give nothing
away. No Docker is needed, or asked.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import compose_spec
import pytest
import yaml

from kit.balancer import ADDRESSES, NODE_IDS, STORE
from kit.compose import (
    BROUGHT,
    CONFIG,
    EMBEDDED,
    NODES,
    PRODUCTION,
    ROOT,
    address,
    compose,
    make_secrets,
    services,
    targets,
)
from secureconnect import __version__
from secureconnect.app import EXIT_MARGIN_S
from secureconnect.config import Config
from secureconnect.config_file import SETTINGS, load

ROOTS = {"minio-volume", "alloy"}  # why, is said beside them
FILES = [EMBEDDED, PRODUCTION]
ONCE = {"minio-volume", "bucket"}


def every() -> Iterator[Any]:
    """Each service of each file."""
    return (pytest.param(file, name, id=name) for file in FILES for name in services(file))


@pytest.mark.parametrize("file", FILES)
def test_the_specification_is_kept(file: str) -> None:
    made = compose_spec.PyCompose.from_json(json.dumps(compose(file)))
    made.validate()
    assert set(made.service_names()) == set(services(file))


def test_the_specification_is_one() -> None:
    with pytest.raises(ValueError, match="imagee"):
        compose_spec.PyCompose.from_json('{"services": {"a": {"imagee": "a:1"}}}')


@pytest.mark.parametrize(("file", "name"), every())
def test_it_may_do_little(file: str, name: str) -> None:
    service = services(file)[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    user, _, group = service["user"].partition(":")
    assert user.isdecimal()
    assert group.isdecimal()
    assert (user == "0") == (name in ROOTS)
    assert "privileged" not in service
    assert bool(service.get("cap_add")) == (name in ROOTS)
    assert not any("docker.sock" in str(each) for each in service.get("volumes", []))


@pytest.mark.parametrize(("file", "name"), every())
def test_it_is_bounded_and_comes_back(file: str, name: str) -> None:
    service = services(file)[name]
    options = service["logging"]["options"]
    assert service["logging"]["driver"] == "json-file"
    assert options["max-size"]
    assert options["max-file"]
    if name in ONCE:
        return
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize(("file", "name"), every())
def test_its_image_is_one_version(file: str, name: str) -> None:
    image, _, tag = services(file)[name]["image"].rpartition(":")
    assert image
    if "build" in services(file)[name]:
        assert (image, tag) == ("secureconnect", __version__)
    assert re.search(r"\d+\.\d+\.\d+|\d{4}-\d{2}-\d{2}T|^\d+\.\d+-", tag), tag


@pytest.mark.parametrize(("file", "name"), every())
def test_no_secret_is_in_its_environment(file: str, name: str) -> None:
    for key, value in services(file)[name].get("environment", {}).items():
        if re.search("PASS|SECRET|KEY|TOKEN", key):
            assert key.endswith("_FILE") or key == "SECURECONNECT_SECRETS", key
            assert str(value).startswith("/run/secrets")
            if key.endswith("_FILE"):
                assert value in targets(name, "secrets")
        if key.startswith("SECURECONNECT_"):
            setting = key.removeprefix("SECURECONNECT_").lower().replace("__", ".")
            assert setting in {"config", "secrets"} or not SETTINGS[setting].about["secret"]


def test_what_the_world_can_reach() -> None:
    production = services(PRODUCTION)
    assert {name for name, each in production.items() if "ports" in each} == {"balancer"}
    assert {name for name, each in production.items() if each.get("network_mode") == "host"} == {"coturn"}
    assert production["balancer"]["ports"] == ["80:80", "443:443"]
    inside = {name for name, each in production.items() if "inside" in each.get("networks", [])}
    assert compose(PRODUCTION)["networks"]["inside"]["internal"] is True
    assert {name for name in inside if "outside" in production[name]["networks"]} == {"balancer", *NODES}
    assert services(EMBEDDED)["secureconnect"]["ports"] == [f"127.0.0.1:{Config().gateway.port}:8080"]


@pytest.mark.parametrize("file", FILES)
def test_what_is_declared_is_used_and_what_is_used_is_declared(file: str) -> None:
    document = compose(file)
    used: dict[str, set[str]] = {"volumes": set(), "networks": set(), "configs": set(), "secrets": set()}
    for service in services(file).values():
        used["networks"] |= set(service.get("networks", []))
        for each in service.get("volumes", []):
            source = each.partition(":")[0]
            if not source.startswith("/"):
                used["volumes"].add(source)
        for kind in ("configs", "secrets"):
            used[kind] |= {
                each if isinstance(each, str) else each["source"] for each in service.get(kind, [])
            }
    for kind, names in used.items():
        assert names == set(document.get(kind) or {}), kind


@pytest.mark.parametrize("file", FILES)
def test_who_waits_for_another_can_be_told(file: str) -> None:
    """A condition of health needs a look at it; ours is the image's own."""
    for name, service in services(file).items():
        for other, wish in service.get("depends_on", {}).items():
            awaited = services(file)[other]
            if wish["condition"] == "service_healthy":
                assert "build" in awaited or "healthcheck" in awaited, (name, other)
            assert (wish["condition"] == "service_completed_successfully") == (other in ONCE)


def test_every_file_it_mounts_is_there(tmp_path: Path) -> None:
    for name, each in compose(PRODUCTION)["configs"].items():
        assert each["file"] == name
        assert (CONFIG / name).is_file(), name
    make_secrets(tmp_path)
    named = {Path(each["file"]).name for each in compose(PRODUCTION)["secrets"].values()}
    assert named == {path.name for path in tmp_path.iterdir()} | BROUGHT
    assert all(each["file"].startswith("secrets/") for each in compose(PRODUCTION)["secrets"].values())
    assert "/config/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_secrets_are_made_once_and_for_the_folder_s_owner(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make_secrets(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    assert len(set(before.values())) == len(before)
    (folder / "turn.secret").unlink()
    make_secrets(folder)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after.pop("turn.secret") != before.pop("turn.secret")
    assert after == before


# the nodes


def settings_of(node: str, secrets: Path) -> Config:
    """As it reads them in its container."""
    files = targets(node, "configs")
    own = {Path(path).name for path in targets(node, "secrets")}
    for path in secrets.iterdir():
        if path.name not in own:
            path.unlink()
    env = dict(services(PRODUCTION)[node]["environment"])
    env["SECURECONNECT_CONFIG"] = str(files[env["SECURECONNECT_CONFIG"]])
    assert env["SECURECONNECT_SECRETS"] == "/run/secrets"
    return load(None, env | {"SECURECONNECT_SECRETS": str(secrets)})


@pytest.mark.parametrize(("node", "node_id"), zip(NODES, NODE_IDS, strict=True))
def test_the_settings_of_a_node_are_those_of_what_is_around_it(
    node: str, node_id: str, tmp_path: Path
) -> None:
    make_secrets(tmp_path)
    password = (tmp_path / "postgres.password").read_text()
    config = settings_of(node, tmp_path)
    around = services(PRODUCTION)
    assert config.node_id == node_id
    assert len(base64.b64decode(config.auth.master_key)) == 32
    assert config.gateway.trusted_proxies == (address("balancer"),)
    database = urlsplit(config.postgres.url)
    assert (database.hostname, database.port, database.password) == (address("postgres"), 5432, password)
    assert database.username == around["postgres"]["environment"]["POSTGRES_USER"]
    assert database.path == "/" + around["postgres"]["environment"]["POSTGRES_DB"]
    redis = urlsplit(config.redis.url)
    assert (redis.hostname, redis.port, len(redis.password or "")) == (address("redis"), 6379, 64)
    assert config.minio.endpoint == f"{address('minio')}:9000"
    assert config.minio.region == around["minio"]["environment"]["MINIO_REGION"]
    assert config.turn.secret
    assert f"{config.data_dir}" == around[node]["volumes"][0].partition(":")[2]
    (most,) = (int(each.partition("=")[2]) for each in around["postgres"]["command"] if "max_conn" in each)
    assert len(NODES) * (config.postgres.connections + 5) < most


def test_the_addresses_are_the_balancer_s() -> None:
    port = load(str(CONFIG / "two-nodes.toml"), {}).gateway.port
    assert tuple(f"{address(node)}:{port}" for node in NODES) == ADDRESSES
    assert f"{address('minio')}:9000" == STORE
    assert "SECURECONNECT_NODE_ID" in services(PRODUCTION)[NODES[0]]["environment"]


def seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text[:-1])


@pytest.mark.parametrize(("file", "name"), [(EMBEDDED, "secureconnect"), *((PRODUCTION, n) for n in NODES)])
def test_a_node_has_time_and_descriptors(file: str, name: str) -> None:
    gateway = (Config() if file == EMBEDDED else load(str(CONFIG / "two-nodes.toml"), {})).gateway
    service = services(file)[name]
    needed = gateway.drain_notice_s + gateway.drain_s + EXIT_MARGIN_S
    assert seconds(service["stop_grace_period"]) > needed
    assert service["ulimits"]["nofile"] > 2 * gateway.max_connections


def test_the_balancer_has_descriptors() -> None:
    found = re.search(r"^\s+maxconn (\d+)", (CONFIG / "haproxy.cfg").read_text(), re.MULTILINE)
    assert found is not None
    assert services(PRODUCTION)["balancer"]["ulimits"]["nofile"] > 2 * int(found[1])
    for path in ("/etc/haproxy/chat.pem", "/run/haproxy/"):
        assert path in (CONFIG / "haproxy.cfg").read_text()
    assert "/etc/haproxy/chat.pem" in targets("balancer", "secrets")
    assert services(PRODUCTION)["balancer"]["tmpfs"][0].startswith("/run/haproxy:")


def test_the_bucket_is_the_nodes_and_nothing_else_is() -> None:
    minio = load(str(CONFIG / "two-nodes.toml"), {}).minio
    script = (CONFIG / "bucket.sh").read_text()
    assert f"mc mb --ignore-existing store/{minio.bucket}\n" in script
    assert f"mc admin user add store {minio.access_key} " in script
    (rule,) = json.loads((CONFIG / "minio-policy.json").read_text())["Statement"]
    assert rule["Resource"] == [f"arn:aws:s3:::{minio.bucket}", f"arn:aws:s3:::{minio.bucket}/*"]
    for name in re.findall(r"secret ([a-z_.]+)\)", script):
        assert f"/run/secrets/{name}" in targets("bucket", "secrets")
    for path in re.findall(r"/etc/\S+", script):
        assert path in targets("bucket", "configs")
    assert "minio.root_password" not in services(PRODUCTION)[NODES[0]]["secrets"]


def test_the_relay_is_the_one_the_clients_are_told(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    turn = settings_of(NODES[0], tmp_path).turn
    text = (CONFIG / "coturn.conf").read_text()
    said = dict(re.findall(r"^([a-z-]+)=(\S+)$", text, re.MULTILINE))
    for url in (*turn.urls, *turn.stun_urls):
        scheme, host, port = re.split("[:?]", url)[:3]
        assert host == said["realm"]
        assert port == said["tls-listening-port" if scheme == "turns" else "listening-port"]
    assert {said["cert"], said["pkey"], "/run/secrets/turn.secret"} == set(targets("coturn", "secrets"))


# what watches


def test_each_reads_the_file_it_is_told() -> None:
    for name, option in (
        ("prometheus", "--config.file="),
        ("alertmanager", "--config.file="),
        ("loki", "-config.file="),
        ("alloy", "/etc/alloy/config.alloy"),
    ):
        (path,) = (
            each.removeprefix(option) or option
            for each in services(PRODUCTION)[name]["command"]
            if each.startswith(option)
        )
        assert path in targets(name, "configs"), name


def test_prometheus_asks_the_nodes_and_tells_alertmanager() -> None:
    path = "/etc/prometheus/prometheus.yml"
    prometheus = yaml.safe_load(targets("prometheus", "configs")[path].read_text())
    asked = {
        target
        for job in prometheus["scrape_configs"]
        for each in job["static_configs"]
        for target in each["targets"]
    }
    assert asked >= set(ADDRESSES)
    for rules in prometheus["rule_files"]:
        assert str(PurePosixPath(path).parent / rules) in targets("prometheus", "configs")
    for each in prometheus["alerting"]["alertmanagers"]:
        for config in each["static_configs"]:
            assert config["targets"] == ["alertmanager:9093"]
    assert "watching" in services(PRODUCTION)["alertmanager"]["networks"]
    named = re.findall(r"^\s*\w+_file: (\S+)$", (CONFIG / "alertmanager.yml").read_text(), re.MULTILINE)
    assert set(named) == set(targets("alertmanager", "secrets"))


def test_grafana_finds_its_sources_and_its_dashboard() -> None:
    mounted = targets("grafana", "configs")
    sources = yaml.safe_load((CONFIG / "grafana-datasources.yml").read_text())["datasources"]
    loki = yaml.safe_load((CONFIG / "loki.yml").read_text())
    for source in sources:
        host, _, port = urlsplit(source["url"]).netloc.partition(":")
        assert "watching" in services(PRODUCTION)[host]["networks"]
        assert int(port) == {"prometheus": 9090, "loki": loki["server"]["http_listen_port"]}[host]
    (provider,) = yaml.safe_load((CONFIG / "grafana-dashboards.yml").read_text())["providers"]
    (dashboard,) = (path for path, file in mounted.items() if file.name == "grafana-dashboard.json")
    assert str(PurePosixPath(dashboard).parent) == provider["options"]["path"]


def test_what_each_keeps_is_in_its_volume() -> None:
    """A folder in a file that is no volume would be lost, or could not be written."""
    kept = {
        name: {each.split(":")[1] for each in service.get("volumes", [])}
        for name, service in services(PRODUCTION).items()
    }
    loki = yaml.safe_load((CONFIG / "loki.yml").read_text())
    assert kept["loki"] == {loki["common"]["path_prefix"]}
    for name, option in (
        ("prometheus", "--storage.tsdb.path="),
        ("alertmanager", "--storage.path="),
        ("alloy", "--storage.path="),
    ):
        (path,) = (
            each.removeprefix(option)
            for each in services(PRODUCTION)[name]["command"]
            if each.startswith(option)
        )
        assert path in kept[name]
