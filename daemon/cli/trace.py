"""``lhama trace``: the last steps of a model, for Perfetto or drawn as an assembly line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lhama.daemon.cli import output, pipelines
from lhama.daemon.cli.client import Client
from lhama.daemon.cli.drawing import assembly_line
from lhama.daemon.cli.timeline import Timeline
from lhama.daemon.errors import LhamaError

CPU, DEVICE = 1, 2


class NothingToShow(LhamaError):
    """The model has made no steps since it was loaded."""


def trace(client: Client, model: str, steps: int, target: Path, svg: Path | None) -> None:
    """Write the last ``steps`` steps as Chrome's trace events, and as a picture if asked."""
    pipeline = pipelines.fetch_one(client, model, steps)
    if not pipeline.spans:
        raise NothingToShow(f"model '{model}' has made no step yet: ask it something first")
    timeline = Timeline.of(pipeline.spans)
    target.write_text(json.dumps(events(timeline, pipeline.model)))
    share = f"{100 * timeline.gap_share:.1f} % of the time the device had nothing to do"
    output.say(f"{len(pipeline.spans)} steps, order '{pipeline.order}', {share}")
    output.say(f"wrote {target}: open it in https://ui.perfetto.dev or chrome://tracing")
    if svg is not None:
        svg.write_text(assembly_line(timeline, pipeline.model))
        output.say(f"wrote {svg}")


def events(timeline: Timeline, model: str) -> dict[str, Any]:
    """https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU"""
    names = [(CPU, "core"), (DEVICE, "device")]
    threads = [
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": tid, "args": {"name": name}}
        for tid, name in names
    ]
    work = [
        {
            "ph": "X",
            "name": f"{bar.kind} {bar.step}",
            "cat": bar.kind,
            "pid": 1,
            "tid": DEVICE if bar.kind == "compute" else CPU,
            "ts": bar.start / 1e3,
            "dur": (bar.end - bar.start) / 1e3,
            "args": {"rows": bar.rows, "tokens": bar.tokens},
        }
        for bar in timeline.bars
    ]
    return {
        "displayTimeUnit": "ns",
        "otherData": {"model": model},
        "traceEvents": [
            {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": f"lhama {model}"}},
            *threads,
            *work,
        ],
    }
