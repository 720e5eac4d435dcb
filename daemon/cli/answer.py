"""Prints an answer as it streams in: thoughts, content, and the statistics of its end."""

from __future__ import annotations

import sys
from collections.abc import Generator
from dataclasses import dataclass

from lhama.daemon import durations
from lhama.daemon.cli import output, wrapping
from lhama.daemon.cli.client import Json

DIM, PLAIN = "\x1b[2m", "\x1b[0m"


@dataclass(slots=True)
class Answer:
    """What came of one request; ``final`` is the last object of the stream, ``{}`` if none."""

    content: str
    thinking: str
    final: Json
    stopped: bool = False
    """The user pressed Ctrl-C: the content ends where the model was."""


def show(
    chunks: Generator[Json, None, None], *, hide_thinking: bool = False, word_wrap: bool = True
) -> Answer:
    """Print the chunks of generate or chat as they come; Ctrl-C ends them, not the program."""
    wrapped = (wrapping.terminal() if word_wrap else None) or str
    content: list[str] = []
    thinking: list[str] = []
    answer = Answer("", "", {})
    styled = output.obeys(sys.stdout)
    with output.Waiting("") as waiting:
        try:
            for chunk in chunks:
                said = chunk.get("message") or chunk
                thought, text = said.get("thinking", ""), said.get("content", said.get("response"))
                # Kept before it is shown: Ctrl-C must not lose what the user has read.
                thinking += [thought] if thought else []
                content += [text] if text else []
                if thought and not hide_thinking:
                    waiting.stop()
                    if len(thinking) == 1:
                        output.say("Thinking...")
                    shown = wrapped(thought)
                    output.say(f"{DIM}{shown}{PLAIN}" if styled else shown, end="")
                if text:
                    waiting.stop()
                    if thinking and len(content) == 1 and not hide_thinking:
                        output.say("\n...done thinking.\n")
                        wrapped("\n")
                    output.say(wrapped(text), end="")
                for call in said.get("tool_calls") or []:
                    waiting.stop()
                    output.say(f"{call['function']['name']}({call['function']['arguments']})")
                answer.final = chunk
        except KeyboardInterrupt:
            answer.stopped = True
        finally:
            chunks.close()  # hangs up, if the answer is not over: the server stops too
    answer.content, answer.thinking = "".join(content), "".join(thinking)
    output.say()
    return answer


def statistics(final: Json) -> str:
    """The counts and times of an answer's last object, one to a line."""
    rows = []
    for key, label in (("total_duration", "total duration"), ("load_duration", "load duration")):
        if final.get(key):
            rows.append((label, durations.render(final[key])))
    for key, label in (("prompt_eval", "prompt eval"), ("eval", "eval")):
        count, duration = final.get(f"{key}_count", 0), final.get(f"{key}_duration", 0)
        if count:
            rows.append((f"{label} count", f"{count} token(s)"))
        if duration:
            rows.append((f"{label} duration", durations.render(duration)))
        if count and duration:
            rows.append((f"{label} rate", output.rate(count, duration)))
    return "\n".join(f"{label + ':':<21} {value}" for label, value in rows)
