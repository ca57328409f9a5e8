"""The state under the page: what follows what, what is news, and where a message belongs. Modules without a
server, asked in one page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from kit.server import Server

from .people import People, Person

MESSAGE = """const message = (seq, more = {}) => ({
  message_id: `m${seq}`, client_message_id: `c${seq}`, conversation_id: "k", sender_id: "ann",
  seq, change: seq, content: `text ${seq}`, message_type: "text",
  metadata: null, reactions: [], file_ids: [], deleted_at: null,
  edited_at: null, sent_at: "2026-01-01T00:00:00Z", ...more });"""


@pytest.fixture(scope="module")
def page(browser: Browser, shared_server: Server) -> Iterator[Person]:
    people = People(browser)
    page = people.visitor(shared_server).at("/sign-in")
    yield page
    page.check()
    people.clear()


def ask(page: Person, module: str, script: str) -> Any:
    """What `script`, the body of a function, returns; `it` is the module."""
    return page.page.evaluate(
        f"""async () => {{
          const main = document.querySelector('script[type="module"]').src;
          const load = (name) => import(new URL(name, main).href);
          const it = await load("{module}");
          {MESSAGE}
          {script}
        }}"""
    )


def test_effects_run_once_for_what_changed(page: Person) -> None:
    assert ask(
        page,
        "store/signal.js",
        """
        const { signal, computed, effect, batch, scope } = it;
        const seen = [], one = signal(1), other = signal(10);
        const isEven = computed(() => one.value % 2 === 0);
        const [, end] = scope(() => effect(() => seen.push([isEven.value, other.value])));
        one.value = 3; // still odd: nobody needs to know
        batch(() => { one.value = 4; other.value = 20; other.value = 30; });
        other.value = 30;
        end();
        one.value = 5; other.value = 40;
        return seen;
        """,
    ) == [[False, 10], [True, 30]]


def test_what_an_effect_began_ends_before_it_runs_again(page: Person) -> None:
    assert ask(
        page,
        "store/signal.js",
        """
        const { signal, effect, onEnd, scope } = it;
        const seen = [], outer = signal("a"), inner = signal(1);
        const [, end] = scope(() => effect(() => {
          const name = outer.value;
          effect(() => seen.push(`${name}${inner.value}`));
          onEnd(() => seen.push(`end ${name}`));
        }));
        outer.value = "b"; inner.value = 2; end(); inner.value = 3;
        return [seen, inner.readers.size, outer.readers.size];
        """,
    ) == [["a1", "end a", "b1", "b2", "end b"], 0, 0]


def test_one_effect_that_fails_leaves_the_others_alone(page: Person) -> None:
    with page.excused("uncaught"):
        assert ask(
            page,
            "store/signal.js",
            """
            const { signal, effect } = it;
            const seen = [], told = signal(0);
            effect(() => { if (told.value === 1) throw new Error("mine"); });
            effect(() => seen.push(told.value));
            told.value = 1; told.value = 2;
            return seen;
            """,
        ) == [0, 1, 2]
        assert page.waits(lambda: "mine" not in str(page.faults))


def test_rows_keep_their_elements_when_they_move(page: Person) -> None:
    assert ask(
        page,
        "parts/dom.js",
        """
        const { signal } = await load("store/signal.js");
        const { h, each, Part } = it;
        let built = 0, ended = 0;
        const { onEnd } = await load("store/signal.js");
        class Row extends Part { build() { built += 1; onEnd(() => ended += 1); return this.text; } }
        customElements.define("test-row", Row);
        const items = signal([{ id: "a", n: 1 }, { id: "b", n: 2 }, { id: "c", n: 3 }]);
        const list = h("ul", null, each(() => items.value, (it) => it.id,
          (item) => Object.assign(new Row(), { text: () => `${item().id}${item().n}` })));
        document.body.append(list);
        const first = list.children[0];
        first.tabIndex = 0; first.focus();
        items.value = [{ id: "c", n: 4 }, { id: "a", n: 5 }, { id: "d", n: 6 }];
        const result = [list.textContent, list.children[1] === first, built, ended];
        list.remove();
        return [...result, ended];
        """,
    ) == ["c4a5d6", True, 4, 1, 4]


def test_text_is_never_markup(page: Person) -> None:
    assert ask(
        page,
        "parts/dom.js",
        """
        const evil = "<img src=x onerror=alert(1)>";
        const made = it.h("p", { title: evil, "aria-label": () => evil }, evil, () => evil, [evil, null, 0]);
        const text = made.textContent;
        return [made.children.length, text.split(evil).length - 1, text.endsWith("0")];
        """,
    ) == [0, 3, True]


def test_a_message_stands_once_and_in_its_place(page: Person) -> None:
    assert ask(
        page,
        "store/timeline.js",
        """
        const line = new it.Timeline("k");
        line.put(message(1)); // not read yet: it comes with the first page
        const before = line.messages.peek().length;
        line.reset([message(4), message(5)], { hasOlder: true, hasNewer: false });
        line.put(message(null, { message_id: "p", client_message_id: "c6", provisional: true }));
        line.put(message(null, { message_id: "p", client_message_id: "c6", provisional: true }));
        const waiting = line.provisional.peek().length;
        line.put(message(6));
        line.put(message(5, { content: "edited" }));
        line.put(message(2, { content: "an old one, edited" }));
        line.prepend([message(2), message(3), message(4)], false);
        return [before, waiting, line.provisional.peek().length, line.hasOlder.peek(),
          line.messages.peek().map(({ seq, content }) => `${seq} ${content}`)];
        """,
    ) == [0, 1, 0, False, ["2 text 2", "3 text 3", "4 text 4", "5 edited", "6 text 6"]]


def test_what_comes_while_older_ones_are_looked_at_leaves_no_hole(page: Person) -> None:
    assert ask(
        page,
        "store/timeline.js",
        """
        const line = new it.Timeline("k");
        line.reset([message(1), message(2)], { hasOlder: false, hasNewer: true });
        line.put(message(9));
        const while_away = line.messages.peek().map((each) => each.seq);
        line.append([message(3), message(4)], true);
        line.append([message(4), message(5)], false);
        line.put(message(6));
        return [while_away, line.messages.peek().map((each) => each.seq)];
        """,
    ) == [[1, 2], [1, 2, 3, 4, 5, 6]]


def test_an_event_is_news_once(page: Person) -> None:
    assert ask(
        page,
        "store/positions.js",
        """
        const held = new it.Positions("h1", [["k", 5], ["gone", 2]]);
        const chat = (change) => ({ type: "chat", conversation_id: "k", change });
        const typing = { type: "typing", conversation_id: "k" };
        const news = [chat(5), chat(7), chat(6), typing].map((event) => held.admit(event));
        const [frame] = held.resume("h2");
        const conversations = { k: { change: 9 }, other: { change: 3 } };
        const lost = held.resumed({ type: "resumed", conversations });
        return [news, frame, lost, held.historyId, [...held.changes]];
        """,
    ) == [
        [False, True, False, True],
        {"type": "resume", "history_id": "h1", "conversations": {"k": 7, "gone": 2}, "more": False},
        ["gone"],
        "h2",
        [["k", 9]],
    ]


def test_many_conversations_are_named_in_several_frames(page: Person) -> None:
    assert ask(
        page,
        "store/positions.js",
        """
        const held = new it.Positions("h", Array.from({ length: 2001 }, (_, n) => [`k${n}`, 1]));
        return held.resume("h").map(({ conversations, more }) => [Object.keys(conversations).length, more]);
        """,
    ) == [[1000, True], [1000, True], [1, False]]


APPLY = """
const { State } = await load("store/state.js");
const state = new State();
state.me.value = { user_id: "me", username: "me", display_name: "Me", avatar_url: null };
state.conversations.set("k", { conversation_id: "k", type: "group", title: "K", last_seq: 3, first_seq: 1,
  change: 3, unread_count: 0, unread_mentions: 0, last_read_seq: 3, last_message: null, my_role: "member",
  created_at: "2026-01-01T00:00:00Z", participants: [{ user_id: "me", role: "member", last_read_seq: 3 }] });
state.timeline("k").reset([message(1), message(2), message(3)], { hasOlder: false, hasNewer: false });
const tell = (event) => it.apply(state, { conversation_id: "k", ...event });
const kept = () => state.conversations.peek("k");
"""


def test_unread_counts_what_others_say_after_what_was_read(page: Person) -> None:
    assert ask(
        page,
        "store/apply.js",
        APPLY
        + """
        tell({ type: "chat", ...message(4, { metadata: { mentions: ["me"] } }) });
        tell({ type: "chat", ...message(5, { sender_id: "me" }) });
        tell({ type: "chat", ...message(6, { message_type: "system" }) });
        const counted = [kept().unread_count, kept().unread_mentions, kept().last_message.seq];
        tell({ type: "read", user_id: "ann", seq: 6 });
        tell({ type: "read", user_id: "me", seq: 4 });
        const partly = kept().unread_count;
        tell({ type: "read", user_id: "me", seq: 6 });
        tell({ type: "read", user_id: "me", seq: 2 });
        return [counted, partly, kept().unread_count, kept().last_read_seq, state.unread.value];
        """,
    ) == [[1, 1, 6], 0, 0, 6, 0]  # what is left after 4 is one's own, and a notice


def test_reactions_show_which_are_ones_own(page: Person) -> None:
    assert ask(
        page,
        "store/apply.js",
        APPLY
        + """
        const chip = { type: "reaction", message_id: "m2", emoji: "x" };
        const react = (user_id, on, count) => tell({ ...chip, user_id, on, count });
        const now = () => state.timeline("k").find("m2").reactions;
        react("ann", true, 1); const others = now();
        react("me", true, 2); const both = now();
        react("ann", false, 1); const mine = now();
        react("me", false, 0);
        return [others, both, mine, now()];
        """,
    ) == [
        [{"emoji": "x", "count": 1, "mine": False}],
        [{"emoji": "x", "count": 2, "mine": True}],
        [{"emoji": "x", "count": 1, "mine": True}],
        [],
    ]


def test_who_is_put_out_holds_nothing_of_it(page: Person) -> None:
    assert ask(
        page,
        "store/apply.js",
        APPLY
        + """
        const ann = { user_id: "ann", username: "ann", display_name: "Ann", avatar_url: null };
        tell({ type: "user_joined", user: ann });
        const people = kept().participants.map((each) => each.user_id);
        tell({ type: "user_left", user: { user_id: "ann" } });
        const left = kept().participants.map((each) => each.user_id);
        tell({ type: "user_left", user: { user_id: "me" } });
        return [people, left, kept() === undefined, state.order.value, state.timeline("k").messages.peek()];
        """,
    ) == [["me", "ann"], ["me"], True, [], []]
