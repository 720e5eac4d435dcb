"""Which parser the output of a Jinja chat template needs, by the marks in its text.

Ollama hands such models to llama.cpp's server, which finds out for itself. Thinking in ``<think>``
tags and calls that are JSON behind one tag need no family's parser: they are not named here.
"""

from __future__ import annotations

from typing import NamedTuple

from lhama.daemon.prompt.parsers.registry import PARSERS
from lhama.daemon.wire.messages import Prompt


class Inferred(NamedTuple):
    """A parser's name, and what is its business."""

    name: str
    whole: bool = False
    """The family has its own marks for thinking or content: it parses with and without tools.
    Of the others only the calls are its."""
    opens: str = ""
    """A prompt that ends with this has begun the thinking; empty: thinking is always opened."""


_MARKS = (
    (("<|channel|>", "<|message|>", "<|start|>"), Inferred("harmony", whole=True)),
    (("<|START_ACTION|>",), Inferred("cohere", whole=True, opens="<|START_THINKING|>")),
    (("<|tool_call>", "<|channel>"), Inferred("gemma4", whole=True)),
    (("<atem:function_calls>",), Inferred("glimmer", whole=True)),
    (("[TOOL_CALLS]", "[ARGS]"), Inferred("ministral", whole=True)),
    (("<start_function_call>",), Inferred("functiongemma")),
    (("<｜tool▁calls▁begin｜>", "```json"), Inferred("cogito")),
    (("<｜tool▁calls▁begin｜>",), Inferred("deepseek3")),
    (("<tool_call>", "<function="), Inferred("qwen3-coder")),
    (("<tool_call>", "<arg_key>"), Inferred("glm-ocr")),
    (("<|tool_call_start|>",), Inferred("lfm2")),
    (("<|tool_list_start|>",), Inferred("lfm2")),
    (("<function_calls>",), Inferred("olmo3")),
)
"""The first whose marks all stand in the text."""


def choose(prompt: Prompt, jinja: str) -> Inferred | None:
    """The family parser of a prompt's answer: the model's own, or what the Jinja template that
    renders asks for."""
    if prompt.parser in PARSERS:
        return Inferred(prompt.parser, whole=True)
    return None if prompt.renderer or prompt.go_template else of_jinja(jinja)


def of_jinja(text: str) -> Inferred | None:
    return next((found for marks, found in _MARKS if all(mark in text for mark in marks)), None)
