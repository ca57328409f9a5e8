"""The web client, in Chromium, of somebody with 1,000 conversations, one of them of 10,000 messages.

    PYTHONPATH=src:tests .venv/bin/python bench/browser.py

The server is another process on the same machine. Printed as a Markdown table: medians of the rounds.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from kit.chromium import driven, launched
from kit.server import Server
from web.crowd import LONG, Crowd, arrives, gather, in_use, listed_s
from web.people import Account, People, Person

ROUNDS = 5
FRAMES = 300
FRAME_MS = 1000 / 60

# What the page has fetched, by the sizes that came over the wire.
FETCHED = """() => performance.getEntriesByType("resource")
  .filter(({ name }) => new URL(name).pathname.startsWith("/app/"))
  .reduce(([count, size], { transferSize }) => [count + 1, size + transferSize], [0, 0])"""

# Milliseconds between frames while the open conversation is scrolled up, a screen in two frames.
SCROLL = """async (frames) => {
  const next = () => new Promise(requestAnimationFrame);
  const list = document.querySelector('[role="group"][aria-label="Messages"]');
  const took = [];
  let before = await next();
  for (let each = 0; each < frames; each += 1) {
    list.scrollTop -= list.clientHeight / 2;
    const now = await next();
    took.push(now - before);
    before = now;
  }
  return { took, articles: list.querySelectorAll("article").length };
}"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, driven() as chromium, launched(chromium) as browser:
        server = Server(Path(folder) / "data")
        server.start()
        people = People(browser)
        ann, bob = Account(server, "ann"), Account(server, "bob")
        try:
            print_table(people, gather(server, ann, bob))
        finally:
            people.clear()
            ann.close()
            bob.close()
            server.close()


def print_table(people: People, crowd: Crowd) -> None:
    print(f"load {os.getloadavg()[0]:.1f}\n\n| | |\n| --- | ---: |")
    cold, warm = loads(people, crowd)
    row("list of 1,000 conversations, on a device that knows nothing", f"{median(cold):.2f} s")
    row("the same, on one that was there before", f"{median(warm):.2f} s")
    ann = arrives(people, crowd)
    ann.settles()
    count, size = ann.page.evaluate(FETCHED)
    row("files of the page until then, and their size", f"{count}, {size / 1000:.0f} kB")
    debugger = ann.context.new_cdp_session(ann.page)
    row("heap of the page then", f"{in_use(debugger)['heap'] / 1e6:.0f} MB")
    frames(ann, crowd)
    row("heap with 10,000 messages held", f"{in_use(debugger)['heap'] / 1e6:.0f} MB")


def loads(people: People, crowd: Crowd) -> tuple[list[float], list[float]]:
    """Seconds until the first rows are there: without, and with what the device kept."""
    cold, warm = [], []
    for _ in range(ROUNDS):
        ann = arrives(people, crowd)
        cold.append(listed_s(ann))
        ann.finds("app.mine.writer.flush()")
        warm.append(listed_s(ann.at("/")))
        people.clear()
    return cold, warm


def frames(ann: Person, crowd: Crowd) -> None:
    ann.finds("app.router.go(`/c/${given[0]}`)", crowd.long)
    ann.sees(f"line {LONG} of")
    held = "app.state.timeline(given[0]).messages.peek().length"
    while ann.finds(held, crowd.long) < LONG:
        ann.finds("app.mine.sync.older(given[0])", crowd.long)
    told: dict[str, Any] = ann.page.evaluate(SCROLL, FRAMES)
    took = told["took"]
    late = sum(each > 1.5 * FRAME_MS for each in took)
    row(
        "frames while 10,000 messages are scrolled: median; longest",
        f"{median(took):.1f}; {max(took):.0f} ms",
    )
    row(f"of {FRAMES} frames, late", str(late))
    row("messages in the page meanwhile", str(told["articles"]))


def median(of: list[float]) -> float:
    return statistics.median(of)


def row(what: str, value: str) -> None:
    print(f"| {what} | {value} |", flush=True)


if __name__ == "__main__":
    main()
