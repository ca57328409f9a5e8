"""What people write is text, wherever it is shown; and nothing of anybody goes where it should not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import playwright.sync_api as playwright
import pytest
from playwright.sync_api import expect

from kit.server import Server

from .people import Account, People, Person

OWN = "document.documentElement.dataset.owned=1"
MARKUP = [
    f'<img src=x onerror="{OWN}">',
    f"\"'><script>{OWN}</script>",
    f"</textarea></style></title><svg/onload={OWN}>",
    f"javascript:{OWN}",
    f'http://a.example/" onmouseover="{OWN}" x="',
    f"{{{{constructor.constructor('{OWN}')()}}}}",
    f"[link](javascript:{OWN})",
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe\N{POP DIRECTIONAL FORMATTING}",
    "&lt;b&gt; &#x3c;script&#x3e;",
    "x" * 400,
]
NAME = "<img src=x onerror=owned()>"  # as long as a name may be anywhere
REACTION = "<img/src=x/onerror=owned()>"


@dataclass
class Den:
    """A server where everything that has words says something wicked.

    reader: an administrator, whom all of it is shown to.  room: a group where it was said.
    """

    server: Server
    reader: Account
    mallory: Account
    room: str


@pytest.fixture(scope="module")
def den(shared_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Den]:
    """Pages that the shared server gives may ask it."""
    folder: Path = tmp_path_factory.mktemp("den") / "data"
    server = Server(folder, GATEWAY__ALLOWED_ORIGINS=shared_server.url)
    server.start()
    mallory, reader = Account(server, NAME), Account(server, "reader")
    reader.becomes_administrator(server)
    room = mallory.group(NAME, reader)
    for text in MARKUP:
        mallory.says(room, text)
    last = mallory.ask("GET", "/v1/messages", conversation_id=room, limit="1")["messages"][0]
    mallory.ask("PUT", f"/v1/messages/{last['message_id']}/reactions/{REACTION.replace('/', '%2F')}")
    mallory.ask(
        "POST", "/v1/polls", {"conversation_id": room, "question": NAME, "options": [NAME, MARKUP[0]]}
    )
    mallory.ask("POST", "/v1/reports", {"user_id": reader.user_id, "reason": "other", "comment": NAME})
    reader.ask("POST", "/v1/admin/announcements", {"text": NAME})
    reader.ask("POST", f"/v1/users/{mallory.user_id}/friend")
    svg = f"<svg xmlns='http://www.w3.org/2000/svg'><script>{OWN}</script></svg>"
    mallory.sends_file(room, f"{NAME}.svg", svg.encode(), "image/svg+xml")
    yield Den(server, reader, mallory, room)
    for account in (reader, mallory):
        account.close()
    assert server.terminate() == 0
    server.check()


SCREENS = (
    "/",
    "/new",
    "/search",
    "/settings",
    *(
        f"/settings/{page}"
        for page in ("profile", "account", "privacy", "devices", "people", "notifications", "about")
    ),
    "/admin",
    *(f"/admin/{page}" for page in ("users", "reports", "announcements", "invites", "audit")),
)


def test_what_was_said_is_shown_as_it_was_written(people: People, den: Den) -> None:
    reader = people.device(den.server, den.reader).at(f"/c/{den.room}")
    shown = reader.page.get_by_role("article")
    for text in MARKUP:
        expect(shown.get_by_text(text, exact=True).first).to_be_attached()
    expect(reader.page.get_by_role("heading", name=NAME)).to_be_visible()
    is_harmless(reader.page)
    for link in reader.page.get_by_role("article").get_by_role("link").all():
        assert str(link.evaluate("(link) => link.protocol")) in ("http:", "https:", "mailto:")
        if not str(link.evaluate("(link) => link.href")).startswith(den.server.url):
            assert {"noopener", "noreferrer"} <= set((link.get_attribute("rel") or "").split())


def test_no_screen_makes_markup_of_it(people: People, den: Den) -> None:
    reader = people.device(den.server, den.reader).at("/")
    reader.is_online()
    for path in SCREENS:
        reader.goes(path)
        is_harmless(reader.page)


def is_harmless(page: playwright.Page) -> None:
    """No script of others' has run, and there is no markup of theirs."""
    strange = page.evaluate(
        """() => [...document.querySelectorAll("*")]
          .filter((each) => each.getAttributeNames().some((name) => /^on|^srcdoc$/.test(name))
            || /^\\s*(javascript|vbscript|data):/i.test(each.getAttribute("href") ?? "")
            || each.getAttribute("src") === "x"
            || (each.localName === "script" && !each.src))
          .map((each) => each.outerHTML)"""
    )
    assert strange == []
    assert page.evaluate("document.documentElement.dataset.owned ?? null") is None


@pytest.fixture(scope="module")
def visitor(browser: playwright.Browser, shared_server: Server) -> Iterator[Person]:
    people = People(browser)
    yield people.visitor(shared_server).at("/sign-in")
    people.check()
    people.clear()


@pytest.mark.parametrize(
    "deed",
    [
        "document.body.innerHTML = '<img src=x>'",
        "new Function('1')",
        "document.body.append(Object.assign(document.createElement('script'), {text: '1'}))",
        "document.body.insertAdjacentHTML('beforeend', '<b>b</b>')",
        "new Worker('data:text/javascript,1')",
    ],
)
def test_the_browser_lets_no_text_become_script(visitor: Person, deed: str) -> None:
    with visitor.excused(r"content security policy", r"Content Security Policy|Trusted|require"):
        refused = visitor.page.evaluate(  # by a timer: what the debugger runs itself may do more
            f"""() => new Promise((resolve) => setTimeout(() => {{
              try {{ {deed}; resolve(null) }} catch (error) {{ resolve(error.name) }}
            }}))"""
        )
    assert refused in ("TypeError", "EvalError", "SecurityError")


def test_an_answer_that_comes_after_signing_out_is_nobodys(people: People, server: Server) -> None:
    ann, bob = people.enter(server, "ann", "bob")
    ann.me.group("A secret of ann", bob.me)
    late: list[tuple[playwright.Route, playwright.APIResponse]] = []
    ann.page.route("**/v1/conversations/*", lambda route: late.append((route, route.fetch())))
    ann.at("/")
    assert ann.waits(lambda: late != [])
    ann.finds("app.session.signOut()")
    expect(ann.page.get_by_role("button", name="Sign in")).to_be_visible()
    for route, answer in late:
        with suppress(playwright.Error):  # nobody waits for it
            route.fulfill(response=answer)
    ann.settles()
    assert ann.finds("app.state.conversations.ids.peek().length") == 0


def test_a_browser_that_keeps_nothing_is_told(people: People, server: Server) -> None:
    (ann,) = people.enter(server, "ann")
    refuse = "IDBFactory.prototype.open = () => { throw new DOMException('no', 'SecurityError'); };"
    ann.context.add_init_script(refuse)
    ann.at("/").is_told("does not let the page keep anything")


COMES = """async ([there, token]) => {
  const said = { told: null, heard: null };
  try {
    const answer = await fetch(`${there}/v1/users/me`, { headers: { Authorization: `Bearer ${token}` } });
    said.told = (await answer.json()).data.username;
  } catch {} // what it is not allowed to know
  const address = `${there.replace("http", "ws")}/v1/ws/chat`;
  const socket = new WebSocket(address, ["secureconnect.v1", `bearer.${token}`]);
  said.heard = await new Promise((resolve) => {
    socket.onmessage = ({ data }) => resolve(JSON.parse(data).type);
    socket.onclose = () => resolve(null);
  });
  socket.close();
  return said;
}"""


def test_pages_of_others_come_in_where_they_are_allowed(people: People, den: Den, server: Server) -> None:
    [ann] = people.enter(server, "Ann", bypass_csp=True)
    ann.allows(den.server.url)
    asked = [den.server.url, den.mallory.session["access_token"]]
    assert ann.at("/sign-in").page.evaluate(COMES, asked) == {"told": den.mallory.username, "heard": "hello"}
    mallory = people.device(den.server, den.mallory, bypass_csp=True)
    mallory.allows(server.url)
    with mallory.excused("CORS|ERR_FAILED|403"):
        asked = [server.url, ann.me.session["access_token"]]
        assert mallory.at("/").page.evaluate(COMES, asked) == {"told": None, "heard": None}
