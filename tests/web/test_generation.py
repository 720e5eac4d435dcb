"""Structured output of a model that thinks: thoughts are free, the answer is constrained."""

from __future__ import annotations

from copy import deepcopy
from typing import cast

from lhama.daemon.protocol.options import Options
from lhama.daemon.protocol.types import ChatRequest
from lhama.daemon.scheduler import Lease, Sink
from lhama.daemon.web.generation import Generation
from lhama.daemon.wire.messages import Delta, Done, Generate, Message, Prompt

DONE = Done("stop", 1, 1, 1, 1)


class Script:
    """A lease whose passes are written down; remembers what each was asked."""

    context = 100

    def __init__(self, *passes: list[Delta]) -> None:
        self._passes = list(passes)
        self.asked: list[Generate] = []
        self.unread = 0

    async def generate(self, request: Generate, sink: Sink) -> None:
        self.asked.append(deepcopy(request))
        deltas = self._passes.pop(0)
        self.unread += len(deltas)
        for delta in deltas:
            self.unread -= 1
            sink([delta])


async def _run(script: Script, form: bytes = b'"json"') -> list[Delta]:
    prompt = Prompt(messages=[Message("user", "q")])
    body = ChatRequest(format=form)  # type: ignore[arg-type]
    generation = Generation(cast(Lease, script), prompt, Options(), body, think_first=True)
    deltas: list[Delta] = []
    await generation.run(deltas.extend)
    return deltas


async def test_the_answer_is_made_again_under_the_grammar() -> None:
    first = [Delta(1, thinking="hm"), Delta(1, "free", thinking="m"), Delta(1, "!", done=DONE)]
    script = Script(first, [Delta(2, "{}"), Delta(2, done=DONE)])
    deltas = await _run(script)
    assert [(d.thinking, d.content) for d in deltas] == [
        ("hm", ""),
        ("m", ""),
        ("", "{}"),
        ("", ""),
    ]
    assert [request.grammar for request in script.asked] == ["", "json"]
    assert script.unread == 1  # the first pass was given up at its first word
    assert script.asked[1].prompt.messages[1:] == [Message("assistant", thinking="hmm")]


async def test_thoughts_without_end_are_one_pass() -> None:
    deltas = await _run(Script([Delta(1, thinking="hm"), Delta(1, done=DONE)]))
    assert deltas[-1].done == DONE


async def test_without_a_format_there_is_one_pass() -> None:
    script = Script([Delta(1, thinking="hm"), Delta(1, "free"), Delta(1, done=DONE)])
    assert "".join(d.content for d in await _run(script, b"")) == "free"
    assert len(script.asked) == 1
