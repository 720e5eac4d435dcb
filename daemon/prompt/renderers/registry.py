"""Renderers by the names of Ollama's configs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lhama.daemon.durations import quote
from lhama.daemon.errors import LhamaError
from lhama.daemon.prompt.renderers import (
    cogito,
    cohere,
    deepseek31,
    functiongemma,
    gemma4,
    glimmer,
    glm,
    laguna,
    lfm2,
    nemotron,
    olmo3,
    qwen3coder,
    qwen3vl,
    qwen35,
)
from lhama.daemon.prompt.tools import Tool
from lhama.daemon.wire.messages import Message

Render = Callable[[Sequence[Message], Sequence[Tool], bool | str | None], str]


@dataclass(frozen=True, slots=True)
class Renderer:
    """``write`` makes a prompt of messages, tools and ``think``; it may raise ``LhamaError``."""

    write: Render
    bos: str = ""
    """What the prompt begins with for tokenizers that do not add it themselves."""


RENDERERS = {
    "cogito": Renderer(cogito.render, deepseek31.BOS),
    "cohere": Renderer(cohere.render, cohere.BOS),
    "deepseek3.1": Renderer(deepseek31.render, deepseek31.BOS),
    "functiongemma": Renderer(functiongemma.render, functiongemma.BOS),
    "gemma4": Renderer(gemma4.small, gemma4.BOS),
    "gemma4-large": Renderer(gemma4.large, gemma4.BOS),
    "gemma4-small": Renderer(gemma4.small, gemma4.BOS),
    "glimmer": Renderer(glimmer.render, glimmer.BOS),
    "glm-4.7": Renderer(glm.glm47),
    "glm-ocr": Renderer(glm.glm_ocr),
    "laguna": Renderer(laguna.laguna, laguna.BOS),
    "lfm2": Renderer(lfm2.plain, lfm2.BOS),
    "lfm2-thinking": Renderer(lfm2.thinking, lfm2.BOS),
    "nemotron-3-nano": Renderer(nemotron.nemotron3),
    "nemotron-3.5-nano": Renderer(nemotron.nemotron35),
    "olmo3": Renderer(olmo3.olmo3),
    "olmo3-32b-think": Renderer(olmo3.thinking_32b),
    "olmo3-think": Renderer(olmo3.thinking),
    "olmo3.1": Renderer(olmo3.olmo31),
    "ornith": Renderer(qwen35.ornith),
    "poolside-v1": Renderer(laguna.poolside, laguna.BOS),
    "qwen3-coder": Renderer(qwen3coder.render),
    "qwen3-vl-instruct": Renderer(qwen3vl.instruct),
    "qwen3-vl-thinking": Renderer(qwen3vl.thinking),
    "qwen3.5": Renderer(qwen35.qwen35),
    "qwen3.8": Renderer(qwen35.qwen38),
}


def find(name: str) -> Renderer:
    """Raises ``LhamaError`` (500) for a name that is not there."""
    if renderer := RENDERERS.get(name):
        return renderer
    raise LhamaError(f"unknown renderer {quote(name)}")
