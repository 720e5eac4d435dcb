"""Where an answer parts from the recorded one, and how close the call was.

The same request is sent again with log-probabilities, so that the figures are those of the very
computation that chose otherwise: the prompt as it was cut, the cache as it was shifted. They are
the model's own, before penalties and grammars.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from lhama_testing_daemon import Daemon
from lhama_testing_wire import Outcome

MOST = 20
"""As many candidates as Ollama's protocol names."""

PENALTIES = {"repeat_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}
"""With the values that change nothing."""


@dataclass(frozen=True, slots=True)
class Parting:
    after: int
    """Tokens that both answers begin with."""
    recorded: str
    here: str
    recorded_p: float
    """Its probability here; not a number below the first twenty."""
    here_p: float
    remarks: tuple[str, ...]

    def __str__(self) -> str:
        pairs = ((self.recorded, self.recorded_p), (self.here, self.here_p))
        words = "".join(f"{f'{text!r} {100 * p:.1f} %':24}" for text, p in pairs)
        return f"{self.after:6}  {words}{', '.join(self.remarks)}".rstrip()


def parting(daemon: Daemon, outcome: Outcome) -> Parting | None:
    """The call at which the answer left the recorded text; None where the texts are equal.

    Under a grammar one text has several ways into tokens, so the answers may have parted before
    the first letter that differs: there it is the closest call of those that can have been it."""
    recorded = said(outcome.recorded)
    if recorded == said(outcome.here):
        return None
    asked = {**outcome.body, "stream": False, "logprobs": True, "top_logprobs": MOST}
    tokens = daemon.call(outcome.request["path"], asked)["logprobs"]
    remarks = tuple(_remarks(outcome.body))
    forks: list[Parting] = []
    text = ""
    for after, token in enumerate(tokens):
        rest = recorded[len(text) :]
        parted = not rest.startswith(token["token"])
        p = math.exp(token["logprob"])
        for other in token["top_logprobs"] if parted or "grammar" in remarks else ():
            word = other["token"]
            if word and word != token["token"] and rest.startswith(word):
                fork = (after, word, token["token"], math.exp(other["logprob"]), p, remarks)
                forks.append(Parting(*fork))
        if parted:
            unseen = Parting(after, rest[:8], token["token"], math.nan, p, remarks)
            if "grammar" in remarks:
                return min(forks, key=_distance, default=unseen)
            return max(forks, key=lambda fork: len(fork.recorded), default=unseen)
        text += token["token"]
    return None


def _distance(fork: Parting) -> float:
    return abs(math.log(fork.here_p / fork.recorded_p))


def _remarks(body: dict[str, Any]) -> list[str]:
    """What else decided beside the model's own probabilities."""
    options = {k: v for k, v in (body.get("options") or {}).items() if v is not None}
    found = [] if options.get("temperature", 0.8) <= 0 else ["drawn"]
    if body.get("format"):
        found.append("grammar")
    if any(options.get(name, neutral) != neutral for name, neutral in PENALTIES.items()):
        found.append("penalties")
    return found


def said(body: str) -> str:
    """What a model said in a reply, streamed or whole."""
    pieces = [json.loads(line) for line in body.splitlines() if line]
    return "".join(
        str(piece.get("response") or (piece.get("message") or {}).get("content") or "")
        for piece in pieces
    )
