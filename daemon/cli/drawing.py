"""Pictures as SVG text: the assembly line, and bars of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lhama.daemon.cli.timeline import Bar, Timeline

WIDTH = 1200
MARGIN = 90
SHOWN = 8
"""Steps that a picture has room for."""

_CORE, _DEVICE, _LANE = 60, 106, 34
"""Where the core's row and the device's begin, and how far its lanes, one a group, are apart."""
_HEIGHT = 28
_STYLE = """<style>
    .page { fill: #ffffff } .text { fill: #24292f } .faint { fill: #57606a }
    .prepare { fill: #b6d7ff } .enqueue { fill: #84b6eb } .compute { fill: #ffd8a8 }
    .commit { fill: #d0c4f7 } .emit { fill: #c3e6cb } .off { fill: #d0d7de } .on { fill: #b6d7ff }
  </style>"""


def assembly_line(timeline: Timeline, title: str) -> str:
    """The last steps: what the core does above, the device's work below it."""
    last = max(bar.step for bar in timeline.bars)
    bars = [b for b in timeline.bars if b.step > last - SHOWN and b.kind != "wait"]
    lanes = 1 + max(bar.group for bar in bars)
    below = _DEVICE + _LANE * lanes + 16
    begin, end = min(bar.start for bar in bars), max(bar.end for bar in bars)
    scale = (WIDTH - MARGIN - 20) / max(end - begin, 1)

    def box(bar: Bar) -> str:
        x, width = MARGIN + (bar.start - begin) * scale, (bar.end - bar.start) * scale
        y = _DEVICE + _LANE * bar.group if bar.kind == "compute" else _CORE
        words = f"{bar.kind} {bar.step}: {(bar.end - bar.start) / 1e3:.0f} µs, {bar.rows} rows"
        label = ""
        if bar.kind in ("compute", "prepare") and width > 30:
            label = _text(x + width / 2, y + 19, str(bar.step), "text", "middle")
        return (
            f'<rect class="{bar.kind}" x="{x:.1f}" y="{y}" width="{max(width, 0.5):.1f}" '
            f'height="{_HEIGHT}" rx="2"><title>{words}</title></rect>{label}'
        )

    milliseconds = (end - begin) / 1e6
    share = f"{100 * timeline.gap_share:.1f} % of the time the device had nothing to do"
    legend = [
        f'<rect class="{kind}" x="{MARGIN + 110 * n}" y="{below}" width="14" height="14" '
        f'rx="2"/>' + _text(MARGIN + 20 + 110 * n, below + 12, kind, "faint")
        for n, kind in enumerate(("prepare", "enqueue", "compute", "commit", "emit"))
    ]
    heading = f"{title}: {SHOWN} steps in {milliseconds:.2f} ms; {share}"
    return _page(
        below + 36,
        heading,
        [
            _text(20, 34, heading, "text"),
            _text(20, _CORE + 19, "core", "faint"),
            _text(20, _DEVICE + 19, "device", "faint"),
            *map(box, bars),
            *legend,
        ],
    )


def comparison(title: str, groups: Sequence[tuple[str, float, float]]) -> str:
    """Two bars for each group: its name, the value with the pipeline off, and on."""
    most = max(max(off, on) for _, off, on in groups)
    scale = (WIDTH - 2 * MARGIN - 60) / (most or 1)
    parts = [_text(20, 34, title, "text")]
    for n, (name, off, on) in enumerate(groups):
        y = 56 + 70 * n
        parts.append(_text(20, y + 32, name, "faint"))
        for offset, kind, value in ((0, "off", off), (28, "on", on)):
            width = value * scale
            parts += [
                f'<rect class="{kind}" x="{MARGIN + 30}" y="{y + offset}" '
                f'width="{width:.1f}" height="24" rx="2"/>',
                _text(MARGIN + 36 + width, y + offset + 17, f"{kind} {value:.0f}", "text"),
            ]
    return _page(70 + 70 * len(groups), title, parts)


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _page(height: int, title: str, parts: Sequence[str]) -> str:
    body = "\n  ".join(parts)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" \
font-family="system-ui, sans-serif" font-size="14" role="img" aria-labelledby="title">
  <title id="title">{escape(title)}</title>
  {_STYLE}
  <rect class="page" width="{WIDTH}" height="{height}" rx="8"/>
  {body}
</svg>
"""
