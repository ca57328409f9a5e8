"""The manifests keep to the schemas of Kubernetes, and agree with the settings, the image and each other."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from kit.compose import CONFIG, ROOT
from secureconnect import __version__
from secureconnect.app import EXIT_MARGIN_S
from secureconnect.config import Config
from secureconnect.config_file import load
from secureconnect.identity import is_id

FOLDER = CONFIG / "kubernetes"
VERSION = "1.30"

Manifest = dict[str, Any]


def manifests() -> Iterator[Manifest]:
    for path in sorted(FOLDER.glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text("utf-8"))


def only(kind: str) -> Manifest:
    (found,) = (each for each in manifests() if each["kind"] == kind)
    return found


def pod() -> Manifest:
    spec: Manifest = only("StatefulSet")["spec"]["template"]["spec"]
    return spec


def node() -> Manifest:
    (container,) = pod()["containers"]
    found: Manifest = container
    return found


def settings(tmp_path: Path) -> Config:
    """Those of the ConfigMap."""
    (name, text), *rest = only("ConfigMap")["data"].items()
    assert not rest
    (tmp_path / name).write_text(text)
    return load(str(tmp_path / name), {})


@pytest.mark.parametrize(
    "manifest", manifests(), ids=lambda each: f"{each['kind']}/{each['metadata']['name']}"
)
def test_the_schema_is_kept(manifest: Manifest) -> None:
    assert kubernetes_validate.validate(manifest, VERSION, strict=True) == VERSION


def test_the_schema_is_one() -> None:
    wrong = only("StatefulSet")
    wrong["spec"]["template"]["spec"]["containers"][0]["imagee"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_there_is_no_secret_in_them() -> None:
    assert "Secret" not in {each["kind"] for each in manifests()}
    text = only("ConfigMap")["data"]["secureconnect.toml"]
    for section, values in tomllib.loads(text).items():
        for key in values:
            assert not re.search("secret_key|master_key|password|^url$", key), f"{section}.{key}"


def test_a_node_gets_its_settings_its_secrets_and_a_name_of_its_own(tmp_path: Path) -> None:
    env = {each["name"]: each.get("value", "") for each in node()["env"]}
    mounts = {each["name"]: each["mountPath"] for each in node()["volumeMounts"]}
    (file,) = only("ConfigMap")["data"]
    assert env["SECURECONNECT_CONFIG"] == f"{mounts['settings']}/{file}"
    assert env["SECURECONNECT_SECRETS"] == mounts["secrets"]
    assert Path(env["SECURECONNECT_DATA_DIR"]).parent == Path(mounts["data"])
    for replica in range(only("StatefulSet")["spec"]["replicas"]):
        assert is_id(env["SECURECONNECT_NODE_ID"].replace("$(POD_INDEX)", str(replica)))
    assert pod()["enableServiceLinks"] is False
    volumes = {each["name"] for each in pod()["volumes"]}
    volumes |= {each["metadata"]["name"] for each in only("StatefulSet")["spec"]["volumeClaimTemplates"]}
    assert volumes == set(mounts)
    config = settings(tmp_path)
    (port,) = node()["ports"]
    assert (config.gateway.host, config.gateway.port) == ("0.0.0.0", port["containerPort"])
    assert config.minio.endpoint


def test_a_drain_is_seen_and_given_its_time(tmp_path: Path) -> None:
    gateway = settings(tmp_path).gateway
    needed = gateway.drain_notice_s + gateway.drain_s + EXIT_MARGIN_S
    assert pod()["terminationGracePeriodSeconds"] > needed
    ready = node()["readinessProbe"]
    assert gateway.drain_notice_s > ready["periodSeconds"] + ready["timeoutSeconds"]


def test_probes_ask_what_there_is() -> None:
    asked = {name: node()[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert asked["readinessProbe"]["path"] == "/readyz"
    assert asked["livenessProbe"]["path"] == asked["startupProbe"]["path"] == "/livez"
    assert {each["port"] for each in asked.values()} == {node()["ports"][0]["name"]}


def test_it_may_do_nothing_but_serve() -> None:
    whole, own = pod()["securityContext"], node()["securityContext"]
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    assert (whole["runAsUser"], whole["runAsGroup"]) == (int(user[1]), int(user[2]))
    assert whole["runAsNonRoot"] is own["readOnlyRootFilesystem"] is True
    assert own["allowPrivilegeEscalation"] is pod()["automountServiceAccountToken"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert node()["image"].endswith(f":{__version__}")


def test_each_node_s_spool_is_led_to_it() -> None:
    services = {each["metadata"]["name"]: each["spec"] for each in manifests() if each["kind"] == "Service"}
    env = {each["name"]: each.get("value", "") for each in node()["env"]}
    (rule,) = only("Ingress")["spec"]["rules"]
    led = {
        each["path"]: services[each["backend"]["service"]["name"]]["selector"]
        for each in rule["http"]["paths"]
    }
    selector = only("StatefulSet")["spec"]["selector"]["matchLabels"]
    assert led.pop("/") == selector
    replicas = only("StatefulSet")["spec"]["replicas"]
    assert led == {
        f"/v1/storage/spool/{env['SECURECONNECT_NODE_ID'].replace('$(POD_INDEX)', str(each))}/": {
            "statefulset.kubernetes.io/pod-name": f"secureconnect-{each}"
        }
        for each in range(replicas)
    }
    assert services[only("StatefulSet")["spec"]["serviceName"]]["clusterIP"] == "None"
    for kind in ("PodDisruptionBudget", "StatefulSet"):
        assert only(kind)["spec"]["selector"]["matchLabels"] == selector
    assert only("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == selector
    assert only("StatefulSet")["spec"]["template"]["metadata"]["labels"].items() >= selector.items()


def test_the_ingress_cuts_nothing_that_lives(tmp_path: Path) -> None:
    gateway = settings(tmp_path).gateway
    notes = {key.rpartition("/")[2]: each for key, each in only("Ingress")["metadata"]["annotations"].items()}
    for name in ("proxy-read-timeout", "proxy-send-timeout"):
        assert int(notes[name]) > max(gateway.ws_silence_s, gateway.request_deadline_s)
    assert notes["proxy-body-size"] == "0"
    assert notes["proxy-request-buffering"] == notes["proxy-buffering"] == "off"
