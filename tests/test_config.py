"""Settings: where they come from, what is refused, and that the file in the repository says them all."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, get_origin, get_type_hints
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secureconnect.config import Config
from secureconnect.config_file import FRAME_ENVELOPE_BYTES, SETTINGS, load, render
from secureconnect.settings import MASK, BadSetting, Setting

ROOT = Path(__file__).parent.parent


def written(folder: Path, text: str) -> str:
    path = folder / "settings.toml"
    path.write_text(text, "utf-8")
    return str(path)


def refused(path: str | None = None, env: dict[str, str] | None = None, **flags: Any) -> str:
    """The one line that a start with these settings ends with."""
    with pytest.raises(BadSetting) as caught:
        load(path, env or {}, flags)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_the_file_in_the_repository_is_the_defaults() -> None:
    text = (ROOT / "secureconnect.toml").read_text("utf-8")
    assert text == render(Config()), "secureconnect config --defaults > secureconnect.toml"
    assert load(str(ROOT / "secureconnect.toml"), {}) == Config()


def test_the_page_of_settings_is_what_the_code_has() -> None:
    made = subprocess.run([sys.executable, ROOT / "scripts" / "configuration", "--check"], check=False)
    assert made.returncode == 0, "run scripts/configuration"


def test_every_setting_says_what_it_means_and_keeps_to_its_own_range() -> None:
    for key, this in SETTINGS.items():
        assert this.about["meaning"], key
        assert this.parse(this.default, "default") == this.default
        if this.type in (int, float):
            assert this.about["low"] is not None, f"{key} has no lower bound"
            assert this.about["high"] is not None, f"{key} has no upper bound"


def test_a_default_is_of_the_type_that_is_declared() -> None:
    """What comes from outside becomes of the default's."""
    parts: list[Any] = [getattr(Config(), each.name) for each in dataclasses.fields(Config)]
    for part in (Config(), *filter(dataclasses.is_dataclass, parts)):
        for name, hint in get_type_hints(type(part)).items():
            assert isinstance(getattr(part, name), get_origin(hint) or hint), f"{type(part)} {name}"


def test_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(None, {}).gateway.port == 8080
    path = written(tmp_path, "[gateway]\nport = 1\nhost = '::1'\n")
    env = {"SECURECONNECT_GATEWAY__PORT": "2"}
    assert load(path, {}).gateway.port == 1
    assert load(path, env).gateway.port == 2
    assert load(path, env, {"gateway.port": 3}).gateway.port == 3
    assert load(path, env, {"gateway.port": None}).gateway.port == 2
    assert load(path, env, {"gateway.port": 3}).gateway.host == "::1"


# the folder of secrets


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """As Kubernetes lays them down: names that lead to a folder beside them."""
    folder = tmp_path / "secrets"
    (folder / "..2026").mkdir(parents=True)
    (folder / "..data").symlink_to("..2026")
    (folder / "..2026" / "minio.secret_key").write_text("a=secret \n")
    (folder / "minio.secret_key").symlink_to("..data/minio.secret_key")
    (folder / "gateway.port").write_text("7\n")
    return folder


def test_secrets_come_from_files_of_a_folder(secrets: Path, tmp_path: Path) -> None:
    path = written(tmp_path, "[gateway]\nport = 1\n[minio]\nbucket = 'mine'\n")
    env = {"SECURECONNECT_SECRETS": str(secrets)}
    config = load(path, env)
    assert (config.minio.secret_key, config.minio.bucket, config.gateway.port) == ("a=secret ", "mine", 7)
    assert load(path, env | {"SECURECONNECT_GATEWAY__PORT": "8"}).gateway.port == 8
    assert load(path, {"SECURECONNECT_SECRETS": ""}).gateway.port == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("minio.secret", b"x", "minio.secret (.*) is not a setting"),
        ("auth.registration", b"shut", "auth.registration = 'shut' (.*) is not valid"),
        ("minio.secret_key", b"\xff", "cannot be read"),
        ("minio.secret_key", b"x" * 65_537, "has more than 65536 bytes"),
        ("minio.secret_key", None, "cannot be read"),
        ("postgres.url", b"mysql://me:hidden@there/x", r"postgres.url = \*+ "),
    ],
)
def test_a_secret_that_is_none(name: str, content: bytes | None, said: str, tmp_path: Path) -> None:
    """content: None: a folder of that name."""
    if content is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(content)
    line = refused(env={"SECURECONNECT_SECRETS": str(tmp_path)})
    assert re.search(said.replace("(.*)", r"\(.*\)"), line), line
    assert "hidden" not in line


def test_a_folder_of_secrets_that_is_not_there() -> None:
    assert "/nowhere" in refused(env={"SECURECONNECT_SECRETS": "/nowhere"})


def test_where_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = written(tmp_path, "data_dir = 'named'")
    assert load(None, {}).data_dir == "./data"
    (tmp_path / "secureconnect.toml").write_text("data_dir = 'here'", "utf-8")
    assert load(None, {}).data_dir == "here"
    assert load(None, {"SECURECONNECT_CONFIG": named}).data_dir == "named"
    assert load("secureconnect.toml", {"SECURECONNECT_CONFIG": named}).data_dir == "here"
    assert "does not exist" in refused("nowhere.toml")
    assert "nowhere.toml" in refused(env={"SECURECONNECT_CONFIG": "nowhere.toml"})


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("gateway.host", "0.0.0.0", "0.0.0.0"),
        ("gateway.port", "0", 0),
        ("gateway.drain_s", "2", 2.0),
        ("rate_limits.enabled", "false", False),
        ("rate_limits.enabled", "1", True),
        (
            "gateway.allowed_origins",
            "https://a.example, https://b.example",
            ("https://a.example", "https://b.example"),
        ),
        ("gateway.allowed_origins", "", ()),
        ("auth.registration", "closed", "closed"),
        ("data_dir", "/var/lib/chat", "/var/lib/chat"),
    ],
)
def test_the_environment(key: str, text: str, value: object) -> None:
    name = "SECURECONNECT_" + key.upper().replace(".", "__")
    found: Any = load(str(ROOT / "secureconnect.toml"), {name: text})
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "toml", "expected"),
    [
        ("gateway.port", "65536", "0..65535"),
        ("gateway.port", "-1", "0..65535"),
        ("gateway.port", "'eighty'", "0..65535"),
        ("gateway.port", "80.5", "0..65535"),
        ("gateway.port", "true", "0..65535"),
        ("gateway.drain_s", "nan", "0..300"),
        ("gateway.drain_s", "inf", "0..300"),
        ("gateway.drain_s", "'soon'", "0..300"),
        ("gateway.drain_s", "9" * 400, "0..300"),
        ("gateway.host", "1", "text"),
        ("gateway.public_url", "'chat.example.org'", "http or https URL"),
        ("gateway.public_url", "'ftp://chat.example.org'", "http or https URL"),
        ("gateway.public_url", "'https://['", "http or https URL"),
        ("gateway.public_url", "'https://chat.example.org:x'", "http or https URL"),
        ("gateway.allowed_origins", "[1]", "list of http or https origins"),
        ("gateway.allowed_origins", "['*']", "list of http or https origins"),
        ("gateway.allowed_origins", "['']", "list of http or https origins"),
        ("gateway.trusted_proxies", "{}", "list of addresses or networks"),
        ("gateway.trusted_proxies", "['10.0.0.1/99']", "list of addresses or networks"),
        ("gateway.trusted_proxies", "['10.0.0.1', 'proxy']", "list of addresses or networks"),
        ("rate_limits.enabled", "1", "true | false"),
        ("rate_limits.enabled", "'yes'", "true | false"),
        ("auth.registration", "'Open'", "open | invite | closed"),
        ("minio.bucket", "''", "3 to 63 of a-z"),
        ("minio.bucket", "'a b'", "3 to 63 of a-z"),
        ("minio.bucket", "'Files'", "3 to 63 of a-z"),
        ("minio.bucket", "'a..b'", "3 to 63 of a-z"),
        ("minio.bucket", "'192.168.1.1'", "3 to 63 of a-z"),
        ("minio.region", "''", "word of a-z"),
        ("data_dir", "[]", "path of a folder"),
        ("data_dir", "''", "path of a folder"),
        ("data_dir", '"a\\u0000b"', "path of a folder"),
    ],
)
def test_a_bad_value_names_key_value_and_range(tmp_path: Path, key: str, toml: str, expected: str) -> None:
    section, _, name = key.rpartition(".")
    header = f"[{section}]\n" if section else ""
    line = refused(written(tmp_path, f"{header}{name} = {toml}\n"))
    value = tomllib.loads(f"x = {toml}")["x"]
    assert key in line
    assert repr(value) in line
    assert expected in line


@pytest.mark.parametrize("key", ["postgres.url", "redis.url"])
@pytest.mark.parametrize("password", ["23456/hush", "23456#hush", "23456?hush", "hu/sh", "hu#sh"])
def test_a_password_that_cuts_its_url_short_is_refused_and_not_told(key: str, password: str) -> None:
    scheme, name = key.partition(".")[0], key.upper().replace(".", "__")
    line = refused(env={f"SECURECONNECT_{name}": f"{scheme}://me:{password}@127.0.0.1:1/0"})
    assert line.startswith(f"{key} = {MASK}")
    assert "23456" not in line
    assert "hu" not in line.partition("expected")[0]
    whole = f"{scheme}://me:{quote(password, safe='')}@127.0.0.1:1/0"
    section = getattr(load(None, {f"SECURECONNECT_{name}": whole}), scheme)
    assert section.url == whole


def test_a_bad_value_in_the_environment_names_the_variable() -> None:
    line = refused(env={"SECURECONNECT_GATEWAY__PORT": "high"})
    assert line == ("gateway.port = 'high' (SECURECONNECT_GATEWAY__PORT) is not valid: expected 0..65535")


@pytest.mark.parametrize(
    "text",
    [
        "[gateway]\nprot = 1",
        "[gatway]\nport = 1",
        "port = 1",
        "gateway = 1",
        "[gateway.port]\nx = 1",
        "['']\ndata_dir = 'x'",
    ],
)
def test_an_unknown_key_stops_the_start(tmp_path: Path, text: str) -> None:
    refused(written(tmp_path, text))


def test_an_unknown_variable_stops_the_start() -> None:
    assert "SECURECONNECT_GATEWAY__PROT" in refused(env={"SECURECONNECT_GATEWAY__PROT": "1"})
    load(str(ROOT / "secureconnect.toml"), {"PATH": "/bin", "SECURE": "1"})


@pytest.mark.parametrize(
    "content", [b"[gateway\n", b"\xff\xfe", b"port = ", b"x = " + b"9" * 5000, b"x = " + b"[" * 5000]
)
def test_a_file_that_is_no_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(content)
    line = refused(str(path))
    assert str(path) in line
    assert "cannot be read" in line


def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    assert "cannot be read" in refused(str(tmp_path))


def test_settings_that_do_not_fit_each_other() -> None:
    line = refused(env={"SECURECONNECT_GATEWAY__WS_PING_S": "60"})
    assert "gateway.ws_silence_s" in line
    assert "gateway.ws_ping_s" in line
    mail = {"SECURECONNECT_SMTP__URL": "smtp://us:hush@mail.example.org"}
    line = refused(env=mail)
    assert "smtp.url" in line
    assert "gateway.public_url" in line
    assert "hush" not in line
    assert load(None, mail | {"SECURECONNECT_GATEWAY__PUBLIC_URL": "https://a.example"}).smtp.url


@pytest.mark.parametrize(
    "url",
    ["smtp://", "http://mail.example.org", "smtp://mail.example.org/x", "smtp://us:23/56@mail:1", "mail:25"],
)
def test_what_is_no_mail_server_is_refused(url: str) -> None:
    line = refused(
        env={"SECURECONNECT_SMTP__URL": url, "SECURECONNECT_GATEWAY__PUBLIC_URL": "https://a.example"}
    )
    assert line.startswith(f"smtp.url = {MASK}")


def test_secrets_are_masked(tmp_path: Path) -> None:
    secrets = [key for key, this in SETTINGS.items() if this.about["secret"]]
    assert "auth.master_key" in secrets
    assert MASK not in render(Config()), "none has a default"
    shown = render(load(None, {"SECURECONNECT_AUTH__MASTER_KEY": "hush"}))
    assert "hush" not in shown
    assert f'master_key = "{MASK}"' in shown
    line = refused(written(tmp_path, "[auth]\nmaster_key = 123456\n"))
    assert "123456" not in line
    assert MASK in line


def _value(this: Setting) -> st.SearchStrategy[Any]:
    low, high = this.about["low"], this.about["high"]
    if this.about["choices"]:
        return st.sampled_from(this.about["choices"])
    if this.about["form"]:
        return st.just(this.default)
    if this.type is int:
        return st.integers(low, high)
    if this.type is float:
        return st.floats(low, high)
    if this.type is bool:
        return st.booleans()
    if this.type is tuple:
        return st.lists(st.text(), max_size=3).map(tuple)
    return st.text()


PLAIN = sorted(key for key, this in SETTINGS.items() if not this.about["secret"])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the first text draw builds tables
@given(st.data())
def test_what_is_rendered_is_read_back(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Every text survives, control characters and emoji too: what `config` prints can be used as the file."""
    changed = Config()
    for key in data.draw(st.lists(st.sampled_from(PLAIN), max_size=8, unique=True)):
        section, _, name = key.rpartition(".")
        value = data.draw(_value(SETTINGS[key]))
        if section:
            part = dataclasses.replace(getattr(changed, section), **{name: value})
            changed = dataclasses.replace(changed, **{section: part})
        else:
            changed = dataclasses.replace(changed, **{name: value})
    path = tmp_path_factory.mktemp("rendered") / "settings.toml"
    path.write_bytes(render(changed).encode())
    is_silent = changed.gateway.ws_silence_s <= changed.gateway.ws_ping_s
    is_too_large = changed.signaling.frame_bytes + FRAME_ENVELOPE_BYTES > changed.signals.payload_bytes
    if is_silent or is_too_large:
        with pytest.raises(BadSetting):
            load(str(path), {})
    else:
        assert load(str(path), {}) == changed


def test_a_signaling_frame_fits_between_nodes() -> None:
    line = refused(env={"SECURECONNECT_SIGNALING__FRAME_BYTES": "65536"})
    assert "signaling.frame_bytes" in line
    assert "signals.payload_bytes" in line


def test_what_the_build_is_told_is_no_setting() -> None:
    """It may stand in the environment of `scripts/run`, which builds and then starts."""
    assert load(None, {"SECURECONNECT_NO_WEB_VENDOR": "1"}) == Config()
