"""What nodes with a mail server write, and what people do with it."""

from __future__ import annotations

import re
from typing import Any

from secureconnect.deps.contracts import Mail
from secureconnect.gateway.web import PAGES

from .harness import PASSWORD, Node, Person, Site

REGISTER = "POST /v1/auth/register"
VERIFY = "POST /v1/auth/email/verify"


async def mails(node: Node, site: Site) -> list[Mail]:
    """What has been sent since it was asked last."""
    await node.outbox.pass_once()
    site.db.forward(0.001)
    sent, site.postman.mails = site.postman.mails, []
    return sent


async def mail(node: Node, site: Site, to: str = "ann@example.org") -> Mail:
    [sent] = await mails(node, site)
    assert sent.to == to
    return sent


def token_in(sent: Mail) -> str:
    """The code, which the link ends with."""
    found = re.search(r"https://chat\.example\.org(/[a-z]+)#[a-z]+=(\S+)\n", sent.text)
    assert found is not None, sent.text
    assert found[1] in PAGES
    assert sent.text.count(found[2]) == 2
    assert f'="{found[0].strip()}"' in sent.html
    return found[2]


def registration(username: str = "ann", email: str = "ann@example.org", **more: Any) -> dict[str, Any]:
    return {"username": username, "email": email, "password": PASSWORD} | more


async def ask_for(node: Node, what: str, body: dict[str, Any], **more: Any) -> Any:
    """202, whether it is the usual answer of the route or not."""
    return await node.ask(what, body, status=202 if what == REGISTER else 200, **more)


async def confirmed(node: Node, site: Site, username: str = "ann") -> Person:
    """Someone with a confirmed address, signed in on a device of their own."""
    email = f"{username}@example.org"
    await ask_for(node, REGISTER, registration(username, email))
    await node.ask(VERIFY, {"token": token_in(await mail(node, site, email))})
    return await node.login(username)
