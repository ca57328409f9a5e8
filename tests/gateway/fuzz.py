"""Looks for bytes that a parser gets wrong.

    pip install atheris
    PYTHONPATH=tests python -m gateway.fuzz frames CORPUS -max_total_time=600

`frames` or `requests`; CORPUS is a folder that grows; the rest is libFuzzer's. What it finds becomes one of
`framing_cases` or of `fuzz_targets.REQUESTS`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["secureconnect.gateway.framing", "secureconnect.gateway.parsing"]):
    from .framing_cases import CASES
    from .fuzz_targets import MOST_BYTES, REQUESTS, frames, requests


def main(name: str, corpus: str, *options: str) -> None:
    target, seeds = {
        "frames": (frames, [bytes((case.deflate,)) + case.data for case in CASES]),
        "requests": (requests, [b"\x03" + request for request in REQUESTS]),
    }[name]
    folder = Path(corpus)
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        if len(seed) <= MOST_BYTES:
            (folder / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], f"-max_len={MOST_BYTES}", *options, corpus], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
