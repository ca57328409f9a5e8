"""Latencies as drawings in SVG, on a page or alone, on light and on dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from .course import Figure

WIDTH, LEFT, RIGHT = 920, 390, 110  # of all, of the names, of the rates
TOP, ROW, BOTTOM = 64, 38, 40
_STYLE = """
svg { background: #ffffff; font: 13px system-ui, sans-serif; }
text { fill: #1f2328; } .faint { fill: #59636e; } .grid { stroke: #d1d9e0; }
.most { stroke: #9ec5e8; stroke-width: 8; stroke-linecap: round; }
.half { stroke: #2f7ebf; stroke-width: 8; stroke-linecap: round; } .middle { fill: #0b3d66; }
@media (prefers-color-scheme: dark) {
  svg { background: #0d1117; } text { fill: #e6edf3; } .faint { fill: #9198a1; } .grid { stroke: #30363d; }
  .most { stroke: #1f4a70; } .half { stroke: #4c9ee0; } .middle { fill: #ffffff; }
}
"""
COLOURS = ("#2f7ebf", "#c2571a", "#3a8f3f", "#9145b6", "#b3861b", "#c23b5e")  # seen on light and on dark
KINDS = len(COLOURS)
_LINES = "polyline { fill: none; stroke-width: 2; } .worst { stroke-dasharray: 2 4; }" + "".join(
    f" .of{number} {{ stroke: {colour}; }}" for number, colour in enumerate(COLOURS)
)


def draw(title: str, figures: Sequence[Figure]) -> str:
    """Of each figure a bar from its 1st to its 99th hundredth, a stronger one from the 10th to the 90th, and
    its middle, on one logarithmic axis."""
    least = min(figure.ms(1) for figure in figures)
    most = max(figure.ms(99) for figure in figures)
    first = math.floor(math.log10(max(least, 0.001)))
    last = max(first + 1, math.ceil(math.log10(max(most, 0.001))))
    height = TOP + ROW * len(figures) + BOTTOM

    def x(ms: float) -> float:
        share = (math.log10(max(ms, 10.0**first)) - first) / (last - first)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        _text(16, 24, title),
        _text(16, 44, "how long each took: 1 to 99 of 100, 10 to 90 of 100, and the middle", "faint"),
        _text(WIDTH - 12, 44, "per second", "faint", "end"),
    ]
    for power in range(first, last + 1):
        at = x(10.0**power)
        parts.append(f'<line class="grid" x1="{at}" y1="{TOP - 8}" x2="{at}" y2="{height - BOTTOM + 4}"/>')
        parts.append(_text(at, height - 16, f"{10.0**power:g} ms", "faint", "middle"))
    for number, figure in enumerate(figures):
        y = TOP + ROW * number + ROW // 2
        parts.append(_text(16, y + 4, figure.what))
        for kind, low, high in (("most", 1, 99), ("half", 10, 90)):
            low_x, high_x = x(figure.ms(low)), x(figure.ms(high))
            parts.append(f'<line class="{kind}" x1="{low_x}" y1="{y}" x2="{high_x}" y2="{y}"/>')
        parts.append(f'<circle class="middle" cx="{x(figure.ms(50))}" cy="{y}" r="4"/>')
        parts.append(_text(WIDTH - 12, y + 4, f"{figure.per_s:,.0f}", anchor="end"))
    return "\n".join([*parts, "</svg>", ""])


def draw_growth(title: str, sizes: Sequence[int], taken: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """What each operation took while something grew, both axes logarithmic.

    taken: of each operation its middle and its 99th hundredth, ms, by size.
    """
    values = [ms for of in taken.values() for pair in of for ms in pair]
    low, high = math.floor(math.log10(max(min(values), 0.001))), math.ceil(math.log10(max(values)))
    height, left, right = 420, 72, 300
    bottom = height - BOTTOM

    def x(number: int) -> float:
        return round(left + (WIDTH - left - right) * number / max(len(sizes) - 1, 1), 1)

    def y(ms: float) -> float:
        share = (math.log10(max(ms, 10.0**low)) - low) / max(high - low, 1)
        return round(bottom - share * (bottom - TOP), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}{_LINES}</style>",
        _text(16, 24, title),
        _text(16, 44, "how long each took: the middle, and dotted 99 of 100", "faint"),
    ]
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts.append(f'<line class="grid" x1="{left}" y1="{at}" x2="{WIDTH - right}" y2="{at}"/>')
        parts.append(_text(left - 8, at + 4, f"{10.0**power:g} ms", "faint", "end"))
    parts += [_text(x(at), height - 16, f"{size:,}", "faint", "middle") for at, size in enumerate(sizes)]
    for number, (what, of) in enumerate(taken.items()):
        for kind, which in (("", 0), (" worst", 1)):
            points = " ".join(f"{x(at)},{y(pair[which])}" for at, pair in enumerate(of))
            parts.append(f'<polyline class="of{number % KINDS}{kind}" points="{points}"/>')
        at, from_x = TOP + 22 * number, WIDTH - right + 24
        points = f"{from_x},{at} {from_x + 24},{at}"
        parts.append(f'<polyline class="of{number % KINDS}" points="{points}"/>')
        parts.append(_text(from_x + 32, at + 4, what))
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
