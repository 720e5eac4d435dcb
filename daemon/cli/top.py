"""``lhama top``: what every loaded model does, drawn anew each second."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from lhama.daemon.cli import output, pipelines
from lhama.daemon.cli.client import Client
from lhama.daemon.protocol.pipelines import Pipeline, PipelinesReply
from lhama.daemon.wire.messages import Counters

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

WORDS = ("MODEL", "BACKEND", "MEMORY", "ORDER")
NUMBERS = ("RUN", "WAIT", "BATCH", "TOK/S", "PROMPT/S", "GAP")


@dataclass(frozen=True)
class Rates:
    """What happened between two looks at a model."""

    batch: float
    """Rows of a step, on average."""
    tokens: float
    prompt_tokens: float
    gap: float
    """The share of time in which the device stood idle though there was work."""

    @classmethod
    def between(cls, before: Counters, after: Counters, seconds: float) -> Rates:
        steps = after.steps - before.steps
        device, gap = after.device_ns - before.device_ns, after.gap_ns - before.gap_ns
        return cls(
            batch=(after.rows - before.rows) / steps if steps else 0.0,
            tokens=(after.tokens - before.tokens) / seconds,
            prompt_tokens=(after.prompt_tokens - before.prompt_tokens) / seconds,
            gap=gap / (device + gap) if device + gap else 0.0,
        )


def top(client: Client, interval: float, times: int) -> None:
    """Draw until interrupted, or ``times`` times if that is not 0.

    A terminal has one table that changes; elsewhere they follow one another.
    """
    from rich.console import Console
    from rich.live import Live

    last: dict[str, tuple[float, Counters]] = {}
    console = Console()
    with Live(console=console, auto_refresh=False) as live:
        for turn in count(1):
            reply = pipelines.fetch(client)
            now = time.monotonic()
            screen = draw(reply, _rates(reply, last, now))
            if console.is_terminal:
                live.update(screen, refresh=True)
            else:
                console.print(screen)
            last = {model.model: (now, model.counters) for model in reply.models}
            if turn == times:
                return
            time.sleep(interval)


def _rates(
    reply: PipelinesReply, last: dict[str, tuple[float, Counters]], now: float
) -> dict[str, Rates]:
    return {
        model.model: Rates.between(last[model.model][1], model.counters, now - last[model.model][0])
        for model in reply.models
        if model.model in last
    }


def draw(reply: PipelinesReply, rates: dict[str, Rates]) -> Table | Text:
    """One screen; a model seen for the first time has no rates yet."""
    from rich.table import Table
    from rich.text import Text

    waiting = f"{reply.queued} requests wait for a model to be loaded" if reply.queued else None
    table = Table(box=None, pad_edge=False, caption=waiting, caption_justify="left")
    for title in WORDS:
        table.add_column(title, overflow="fold")
    for title in NUMBERS:
        table.add_column(title, justify="right", no_wrap=True)
    for model in reply.models:
        table.add_row(*_row(model, rates.get(model.model)))
    return table if reply.models else Text(waiting or "no model is loaded")


def _row(model: Pipeline, rates: Rates | None) -> tuple[str, ...]:
    moving = ("-",) * 4
    if rates is not None:
        moving = (
            f"{rates.batch:.1f}",
            f"{rates.tokens:.0f}",
            f"{rates.prompt_tokens:.0f}",
            f"{100 * rates.gap:.1f}%",
        )
    return (
        model.model,
        f"{model.backend} {model.device}",
        output.size(model.size),
        model.order,
        f"{model.running}/{model.slots}",
        str(model.waiting),
        *moving,
    )
