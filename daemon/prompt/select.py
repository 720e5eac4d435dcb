"""Which template renders a model's prompts."""

from __future__ import annotations

from enum import StrEnum

from lhama.daemon.prompt.capabilities import use_jinja


class Renderer(StrEnum):
    GO = "go"
    JINJA = "jinja"
    NONE = "none"


def select(go_template: str, jinja: str, go_setting: bool | None = None) -> Renderer:
    """``go_setting`` is ``OLLAMA_GO_TEMPLATE``: true and false force, ``None`` (not set) takes the
    template that can do more. A forced kind that the model lacks falls back to the other."""
    if jinja and use_jinja(go_template, jinja, go_setting):
        return Renderer.JINJA
    return Renderer.GO if go_template else Renderer.NONE


def go_template(go_template: str, jinja: str, go_setting: bool | None = None) -> str:
    """``Prompt.go_template`` for a model: its Go template where that renders, else empty."""
    return go_template if select(go_template, jinja, go_setting) is Renderer.GO else ""
