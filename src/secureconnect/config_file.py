"""Where the settings come from, and how they are written down.

`load` reads flag, environment, folder of secrets, file and default, in that order of precedence, and returns
one frozen `Config`. `secureconnect.toml` is `render(Config())`, kept equal by a test. A bad value ends the
start with one line that names key, value and range.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .config import Config
from .settings import MASK, BadSetting, Setting

PREFIX = "SECURECONNECT_"
_SECRETS = f"{PREFIX}SECRETS"  # a folder
_NO_SETTINGS = {f"{PREFIX}CONFIG", _SECRETS, f"{PREFIX}NO_WEB_VENDOR"}  # the last one is the build's
SECRET_BYTES = 65_536  # of one file there
FRAME_ENVELOPE_BYTES = 1_024  # room for what a frame between nodes is wrapped in


def _settings() -> Iterator[Setting]:
    for name, section in _sections().items():
        for item in _own_fields(section):
            key = f"{name}.{item.name}" if name else item.name
            yield Setting(key, type(item.default), item.default, item.metadata)


def _own_fields(section: type[Any]) -> list[dataclasses.Field[Any]]:
    """The settings of a section, without its subsections."""
    return [item for item in dataclasses.fields(section) if item.metadata]


def _sections() -> dict[str, type[Any]]:
    """Section name → dataclass; the top level is `""`."""
    return {"": Config} | {f.name: type(f.default) for f in dataclasses.fields(Config) if not f.metadata}


SETTINGS: Mapping[str, Setting] = MappingProxyType({each.key: each for each in _settings()})


def load(
    path: str | None = None, env: Mapping[str, str] = os.environ, flags: Mapping[str, Any] | None = None
) -> Config:
    """The effective settings. Raises BadSetting.

    path: a file that must exist; None: `$SECURECONNECT_CONFIG`, else `./secureconnect.toml` if there.
    flags: values from the command line by key; None values are left out.
    """
    values: dict[str, Any] = {}
    values.update(_from_file(path or env.get(f"{PREFIX}CONFIG") or None))
    values.update(_from_secrets(env.get(_SECRETS) or None))
    values.update(_from_env(env))
    for key, value in (flags or {}).items():
        if value is not None:
            values[key] = SETTINGS[key].parse(value, "command line")
    sections: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        sections.setdefault(section, {})[name] = value
    kinds = _sections()
    built = {name: kinds[name](**given) for name, given in sections.items() if name}
    config = Config(**sections.get("", {}), **built)
    _check_together(config)
    return config


def _from_file(path: str | None) -> dict[str, Any]:
    found = Path(path or "secureconnect.toml")
    if path is None and not found.exists():
        return {}
    try:
        document = tomllib.loads(found.read_text("utf-8"))
    except FileNotFoundError:
        raise BadSetting(f"the settings file {found} does not exist") from None
    except (OSError, ValueError, RecursionError) as exc:  # ValueError: no UTF-8, no TOML, endless numbers
        raise BadSetting(f"the settings file {found} cannot be read: {exc}") from None
    values: dict[str, Any] = {}
    sections = _sections()
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict) and name in sections:
            flat.update({f"{name}.{key}": one for key, one in value.items()})
        else:
            flat[name] = value
    for key, value in flat.items():
        values[key] = _known(key, str(found)).parse(value, str(found))
    return values


def _from_secrets(path: str | None) -> dict[str, Any]:
    """Of a folder with a file for each setting, named like it (`auth.master_key`): as Docker, Kubernetes and
    systemd hand secrets over. Names that begin with a dot are Kubernetes's own."""
    if path is None:
        return {}
    values: dict[str, Any] = {}
    try:
        for file in sorted(Path(path).iterdir()):
            if file.name.startswith("."):
                continue
            setting = _known(file.name, str(file))
            with file.open("rb") as opened:
                content = opened.read(SECRET_BYTES + 1)
            if len(content) > SECRET_BYTES:
                raise BadSetting(f"{file} has more than {SECRET_BYTES} bytes")
            values[file.name] = setting.parse(content.decode().rstrip("\r\n"), str(file))
    except (OSError, UnicodeDecodeError) as exc:
        raise BadSetting(f"the folder of secrets {path} cannot be read: {exc}") from None
    return values


def _from_env(env: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in env.items():
        if not name.startswith(PREFIX) or name in _NO_SETTINGS:
            continue
        key = name.removeprefix(PREFIX).lower().replace("__", ".")
        values[key] = _known(key, name).parse(text, name)
    return values


def _known(key: str, source: str) -> Setting:
    try:
        return SETTINGS[key]
    except KeyError:
        raise BadSetting(
            f"{key} ({source}) is not a setting; `secureconnect config` lists them all"
        ) from None


def _check_together(config: Config) -> None:
    """What one setting alone cannot say."""
    if config.smtp.url and not config.gateway.public_url:
        raise BadSetting("smtp.url is set without gateway.public_url, which the links in mails begin with")
    if config.signaling.frame_bytes + FRAME_ENVELOPE_BYTES > config.signals.payload_bytes:
        raise BadSetting(
            f"signaling.frame_bytes = {config.signaling.frame_bytes} does not fit between nodes: it must be"
            f" {FRAME_ENVELOPE_BYTES} less than signals.payload_bytes = {config.signals.payload_bytes}"
        )
    if config.turn.urls and not config.turn.secret:
        raise BadSetting("turn.urls is set without turn.secret, which credentials are made with")
    if config.gateway.ws_silence_s <= config.gateway.ws_ping_s:
        raise BadSetting(
            f"gateway.ws_silence_s = {config.gateway.ws_silence_s} must be greater than "
            f"gateway.ws_ping_s = {config.gateway.ws_ping_s}"
        )


def render(config: Config) -> str:
    """The settings as TOML, every key with its range and meaning; secrets masked."""
    lines = [
        "# SecureConnect: every setting, its meaning and range. What is left out has its default,",
        "# which `secureconnect config --defaults` prints.",
        "# Precedence: command line, environment (SECURECONNECT_SECTION__KEY), the folder of secrets",
        "# (SECURECONNECT_SECRETS), this file, default.",
    ]
    for name, kind in _sections().items():
        if name:
            lines += ["", f"[{name}]"]
        holder = getattr(config, name) if name else config
        for item in _own_fields(kind):
            this = SETTINGS[f"{name}.{item.name}" if name else item.name]
            value = getattr(holder, item.name)
            shown = MASK if this.about["secret"] and value else value
            text = toml(list(shown) if isinstance(shown, tuple) else shown)
            lines.append(f"{item.name} = {text}    # {this.about['meaning']} ({this.range})")
    return "\n".join(lines) + "\n"


def toml(value: Any) -> str:
    # JSON is TOML here, but for surrogate pairs (hence no ASCII) and a bare DEL
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
