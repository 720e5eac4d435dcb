"""``lhama bench``: this model on this machine, the pipeline on and off, in turn in one process."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lhama.daemon.cli import drawing, load, output, pipelines
from lhama.daemon.cli.client import Client
from lhama.daemon.errors import BadRequest
from lhama.daemon.protocol.pipelines import Pipeline

TURN = ("on", "off", "off", "on")
"""Blocks of a round: what drifts in it weighs on both alike."""
SUBJECTS = ("a fox who wants to see the sea", "two sisters and a clock", "the last lighthouse")
OPTIONS = {"temperature": 0.8, "top_k": 40, "top_p": 0.9}


@dataclass
class Block:
    """One load with the pipeline on or off; times in milliseconds."""

    pipeline: str
    tokens_per_s: float
    """Of all streams together, prompts included."""
    first_ms: float
    """Median time to a stream's first token."""
    gap_p95_ms: float
    """95th percentile of the time between two tokens of a stream."""
    idle: float
    """The share of time in which the device had nothing to do, as the runner reckons it."""


@dataclass
class Result:
    """All blocks with so many streams."""

    streams: int
    blocks: list[Block]

    def median(self, pipeline: str, figure: str) -> float:
        values: list[float] = [
            getattr(block, figure) for block in self.blocks if block.pipeline == pipeline
        ]
        return statistics.median(values)

    @property
    def gain(self) -> float:
        """Median ratio of tokens per second, on over off, of blocks that ran side by side."""
        rates = [block.tokens_per_s for block in self.blocks]
        pairs = zip(self.blocks[::2], rates[::2], rates[1::2], strict=True)
        return statistics.median(a / b if one.pipeline == "on" else b / a for one, a, b in pairs)


def read_streams(text: str) -> list[int]:
    """``1,8,32``. Raises ``BadRequest``."""
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise BadRequest(f"--streams takes numbers, as in 1,8,32; not {text!r}")
    return [int(part) for part in parts]


def bench(
    client: Client,
    model: str,
    streams: Sequence[int],
    *,
    tokens: int,
    rounds: int,
    json_file: Path | None,
    chart: Path | None,
) -> None:
    """Load the model, run all blocks, print a table; write the files that were asked for.

    Raises ``OSError`` before anything is measured where a file cannot be written.
    """
    for path in filter(None, (json_file, chart)):
        path.open("a").close()
    client.post("/api/generate", {"model": model, "stream": False})
    before = pipelines.fetch_one(client, model)
    output.say(f"{before.model} on {before.backend} ({before.device}), {before.slots} slots")
    for note in before.notes:
        output.say(note)
    try:
        results = [_measure(client, model, count, tokens, rounds) for count in streams]
    finally:
        pipelines.arrange(client, model, "auto")
    output.say()
    output.say(table(results))
    if before.slots < max(streams):
        output.say(f"\nMore than {before.slots} streams wait for a slot: see OLLAMA_NUM_PARALLEL.")
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(result) for result in results], indent=1))
    if chart is not None:
        groups = [
            (
                _streams(r.streams),
                r.median("off", "tokens_per_s"),
                r.median("on", "tokens_per_s"),
            )
            for r in results
        ]
        chart.write_text(drawing.comparison(f"{before.model}: tokens per second", groups))


def table(results: Sequence[Result]) -> str:
    header = ("STREAMS", "ON tok/s", "OFF tok/s", "GAIN", "FIRST ms", "GAP p95 ms", "IDLE on/off")
    rows = [
        (
            str(r.streams),
            f"{r.median('on', 'tokens_per_s'):.1f}",
            f"{r.median('off', 'tokens_per_s'):.1f}",
            f"{100 * (r.gain - 1):+.1f}%",
            f"{r.median('on', 'first_ms'):.0f}",
            f"{r.median('on', 'gap_p95_ms'):.1f}",
            f"{100 * r.median('on', 'idle'):.1f}% / {100 * r.median('off', 'idle'):.1f}%",
        )
        for r in results
    ]
    return output.table(header, rows)


def _measure(client: Client, model: str, streams: int, tokens: int, rounds: int) -> Result:
    blocks: list[Block] = []
    _block(client, model, "on", streams, tokens, 0)  # warms up
    for n in range(rounds):
        for place, pipeline in enumerate(TURN):
            output.passing(f"{_streams(streams)}, block {4 * n + place + 1}/{4 * rounds}")
            blocks.append(_block(client, model, pipeline, streams, tokens, 1 + 4 * n + place))
    output.passing("")
    return Result(streams, blocks)


def _streams(count: int) -> str:
    return f"{count} stream" if count == 1 else f"{count} streams"


def _block(
    client: Client, model: str, pipeline: str, streams: int, tokens: int, seed: int
) -> Block:
    pipelines.arrange(client, model, pipeline)
    prompts = [
        f"Story {seed}.{n}: once upon a time there was {SUBJECTS[n % len(SUBJECTS)]}, and "
        for n in range(streams)
    ]
    before = pipelines.fetch_one(client, model)
    options = {**OPTIONS, "seed": seed}
    answers, seconds = load.run(client.url, model, prompts, tokens, options)
    after = pipelines.fetch_one(client, model)
    gaps = [gap for answer in answers for gap in answer.gaps()]
    return Block(
        pipeline,
        tokens_per_s=sum(len(answer.arrivals) for answer in answers) / seconds,
        first_ms=1e3 * statistics.median(answer.first for answer in answers),
        gap_p95_ms=1e3 * statistics.quantiles(gaps, n=20)[-1] if len(gaps) > 1 else 0.0,
        idle=_idle(before, after),
    )


def _idle(before: Pipeline, after: Pipeline) -> float:
    gap = after.counters.gap_ns - before.counters.gap_ns
    busy = after.counters.device_ns - before.counters.device_ns
    return gap / (gap + busy) if gap + busy else 0.0
