"""What a setting is: its default, meaning, range and form, and how a value from outside becomes its type.

`config` says which there are.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from .identity import is_id

MASK = "********"
_HUGE = 10**300  # of whole numbers for a float: beyond every range, and not yet too large for one


class BadSetting(Exception):
    """One line for the person who starts the server."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a text, or each of a list, must look like.  name: that in words, as errors and the file say it."""

    name: str
    fits: Callable[[str], bool]


def _is_web_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_redis_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        if parts.scheme == "unix":
            return bool(parts.path)
        return parts.scheme in ("redis", "rediss") and bool(parts.hostname) and _is_whole(parts)
    except ValueError:
        return False


def _is_postgres_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("postgres", "postgresql") and bool(parts.netloc) and _is_whole(parts)
    except ValueError:
        return False


def _is_smtp_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        alone = parts.path in ("", "/") and not parts.query and not parts.fragment
        return parts.scheme in ("smtp", "smtps") and bool(parts.hostname) and alone and _is_whole(parts)
    except ValueError:
        return False


def _is_mail_address(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,190}", text) is not None


def _is_whole(parts: SplitResult) -> bool:
    """False if a `/`, `#` or `?` in the password has ended the address, whose port the password then seems
    to be. Raises ValueError if the port is none."""
    cut = "@" in parts.path + parts.fragment or (not parts.path and "@" in parts.query)
    return parts.port != 0 and not cut


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


FOLDER = Form("path of a folder", lambda text: bool(text) and "\0" not in text)
NODE_ID = Form("UUID in lower case", is_id)
WEB_URL = Form("http or https URL", _is_web_url)
WEB_ORIGINS = Form("list of http or https origins", _is_web_url)
REDIS_URL = Form("redis, rediss or unix URL", _is_redis_url)
POSTGRES_URL = Form("postgres or postgresql URL", _is_postgres_url)
SMTP_URL = Form("smtp or smtps URL", _is_smtp_url)
MAIL_ADDRESS = Form("e-mail address", _is_mail_address)
CONTACT = Form(
    "mailto or https address",
    lambda text: re.fullmatch(r"(mailto:[^\s@]+@|https://)[^\s@/]+(/\S*)?", text) is not None,
)
BUCKET = Form(
    "3 to 63 of a-z, 0-9, . and -, the first and last no mark",
    lambda text: (
        re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", text) is not None
        and not any(pair in text for pair in ("..", ".-", "-."))
        and not re.fullmatch(r"\d+(\.\d+){3}", text)
    ),
)
REGION = Form("word of a-z, 0-9 and -", lambda text: re.fullmatch(r"[a-z0-9-]+", text) is not None)
ICE_URL = re.compile(
    r"(?P<scheme>stuns?|turns?)"
    r":(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)"
    r"(:(?P<port>\d{1,5}))?(\?transport=(?P<transport>udp|tcp))?"
)
"""Where a STUN or TURN server is. RFC 7064, RFC 7065."""


def _is_ice_url(text: str, schemes: tuple[str, ...]) -> bool:
    found = ICE_URL.fullmatch(text)
    if found is None or found["scheme"] not in schemes or not 0 < int(found["port"] or 1) < 65_536:
        return False
    if found["scheme"].startswith("stun") and found["transport"]:
        return False  # browsers refuse the whole list for one such
    try:
        return not found["host"].startswith("[") or bool(ipaddress.IPv6Address(found["host"][1:-1]))
    except ValueError:
        return False


STUN_URLS = Form("list of stun or stuns addresses", lambda text: _is_ice_url(text, ("stun", "stuns")))
TURN_URLS = Form("list of turn or turns addresses", lambda text: _is_ice_url(text, ("turn", "turns")))
HEADERS = Form(
    "list of name=value",
    lambda text: re.fullmatch(r"[A-Za-z0-9-]{1,64}=[\x20-\x7e]{1,4096}", text) is not None,
)
SERVICE = Form(
    "1 to 64 letters, digits, ., _ and -", lambda text: re.fullmatch(r"[\w.-]{1,64}", text) is not None
)
NETWORKS = Form("list of addresses or networks", _is_network)


def setting(
    default: Any,
    meaning: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    form: Form | None = None,
    secret: bool = False,
) -> Any:
    """A dataclass field with what the file, the errors and the documentation say about it.

    low, high: the closed range of a number.  choices: the only texts allowed.
    form: of a text other than the default.  secret: masked when shown.
    """
    about = {
        "meaning": meaning,
        "low": low,
        "high": high,
        "choices": choices,
        "form": form,
        "secret": secret,
    }
    return field(default=default, metadata=about)


@dataclass(frozen=True, slots=True)
class Setting:
    """One key: `gateway.port`, its Python type and what `setting` said of it."""

    key: str
    type: type
    default: Any
    about: Mapping[str, Any]

    @property
    def range(self) -> str:
        low, high, choices = self.about["low"], self.about["high"], self.about["choices"]
        if choices:
            return " | ".join(choices)
        if self.about["form"]:
            return str(self.about["form"].name)
        if low is not None or high is not None:
            return f"{low}..{high}"
        return {str: "text", bool: "true | false", tuple: "list of texts"}.get(self.type, self.type.__name__)

    def parse(self, value: Any, source: str) -> Any:
        """`value` as TOML gave it, or as text from the environment or a flag. Raises BadSetting."""
        shown = MASK if self.about["secret"] else repr(value)
        wrong = BadSetting(f"{self.key} = {shown} ({source}) is not valid: expected {self.range}")
        if isinstance(value, str) and self.type is not str:
            value = self._from_text(value, wrong)
        if self.type is tuple and isinstance(value, list):
            value = tuple(value)
        if self.type is float and type(value) is int:
            value = float(min(max(value, -_HUGE), _HUGE))
        if type(value) is not self.type:
            raise wrong
        if isinstance(value, tuple) and not all(isinstance(part, str) for part in value):
            raise wrong
        low, high, choices = self.about["low"], self.about["high"], self.about["choices"]
        if choices and value not in choices:
            raise wrong
        form, texts = self.about["form"], value if isinstance(value, tuple) else (value,)
        if form and value != self.default and not all(map(form.fits, texts)):
            raise wrong
        # written so that NaN fails too
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            raise wrong
        return value

    def _from_text(self, text: str, wrong: BadSetting) -> Any:
        if self.type is tuple:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        if self.type is bool:
            try:
                return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
            except KeyError:
                raise wrong from None
        try:
            return self.type(text)
        except ValueError:
            raise wrong from None
