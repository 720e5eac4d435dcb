"""Runs the Jinja chat template that comes inside a GGUF, in the environment such templates expect.

minijinja's fuel stops loops. It does not bound memory: a template that doubles a string forty
times ends the process, which is why this runs in the runner only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import minijinja

from lhama.daemon.errors import BadRequest
from lhama.daemon.prompt.callids import calls_with_ids
from lhama.daemon.prompt.conversation import merged, system_text
from lhama.daemon.wire.messages import Message

FUEL = 5_000_000
"""Instructions of one rendering, some tenths of a second; 1,000 messages take a tenth of it."""
MAX_TEMPLATE_BYTES = 256 * 1024
MAX_OUTPUT_CHARS = 16 * 1024 * 1024

# Marks the assistant's tokens for training; renders as its body.
_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")


# Mistral's templates refuse ids of any other length than nine.
_SHORT_IDS = re.compile(r"id\s*\|\s*length\s*!=\s*9")


class _TemplateRefusal(Exception):
    """The template called ``raise_exception``."""


class JinjaTemplate:
    """A compiled chat template. ``render`` may be called from any thread."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_TEMPLATE_BYTES:
            raise BadRequest(f"chat template is longer than {MAX_TEMPLATE_BYTES} bytes")
        self._environment = _environment()
        self._short_ids = _SHORT_IDS.search(text) is not None
        try:
            self._environment.add_template("chat", _GENERATION.sub(_keep_trim, text))
        except (minijinja.TemplateError, ValueError) as error:
            raise BadRequest(f"chat template does not parse: {_first_line(error)}") from None

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] = (),
        *,
        think: bool | str | None = None,
        bos: str = "",
        eos: str = "",
    ) -> str:
        """The prompt's text, a trailing assistant message left open to be continued.

        A template that refuses the conversation is asked once more with system texts folded into
        the first user message and equal roles merged. Raises ``BadRequest`` if it still refuses,
        fails or does not end.
        """
        prefill = ""
        messages = calls_with_ids(messages, short=self._short_ids)
        if messages and messages[-1].role == "assistant" and not messages[-1].tool_calls:
            prefill, messages = messages[-1].content, messages[:-1]
        values = {
            "tools": list(tools) or None,
            "documents": None,
            "bos_token": bos,
            "eos_token": eos,
            "add_generation_prompt": True,
            "add_bos_token": False,
            "add_eos_token": False,
            **_thinking(think),
        }
        try:
            text = self._run(messages, values)
        except _TemplateRefusal:
            try:
                text = self._run(merged(_folded(messages)), values)
            except _TemplateRefusal as error:
                raise BadRequest(f"chat template: {error}") from None
        return text + prefill

    def _run(self, messages: Sequence[Message], values: dict[str, Any]) -> str:
        try:
            text: str = self._environment.render_template(
                "chat", messages=[_message(m) for m in messages], **values
            )
        except minijinja.TemplateError as error:
            cause = error.__cause__
            if isinstance(cause, _TemplateRefusal):
                raise cause from None
            if error.kind == "OutOfFuel":
                raise BadRequest("chat template stopped: it does not end") from None
            raise BadRequest(f"chat template failed: {_first_line(error)}") from None
        if len(text) > MAX_OUTPUT_CHARS:
            raise BadRequest("chat template stopped: its output is too long")
        return text


@lru_cache(maxsize=8)
def compile_template(text: str) -> JinjaTemplate:
    """The compiled ``text``. Raises ``BadRequest``."""
    return JinjaTemplate(text)


def _environment() -> minijinja.Environment:
    environment = minijinja.Environment(
        trim_blocks=True, lstrip_blocks=True, pycompat=True, fuel=FUEL
    )
    environment.auto_escape_callback = lambda _name: False
    environment.add_filter("tojson", _to_json)
    environment.add_test("iterable", _is_iterable)
    environment.add_global("raise_exception", _raise)
    environment.add_global("strftime_now", lambda layout: datetime.now().strftime(layout))
    return environment


def _to_json(
    value: Any,
    indent: int | None = None,
    ensure_ascii: bool = False,
    separators: Sequence[str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers defines the filter: Python's spacing, no HTML escapes."""
    pair = (separators[0], separators[1]) if separators else None
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=pair, sort_keys=sort_keys
    )


def _is_iterable(value: Any) -> bool:
    """As in Python, where ``None`` is not; minijinja takes it for an empty list."""
    return isinstance(value, Iterable)


def _raise(message: str) -> None:
    raise _TemplateRefusal(message)


def _keep_trim(tag: re.Match[str]) -> str:
    """A comment in a tag's place keeps its ``-`` signs at work."""
    start = "{#-" if tag.group().startswith("{%-") else "{#"
    return start + (" -#}" if tag.group().endswith("-%}") else " #}")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _thinking(think: bool | str | None) -> dict[str, Any]:
    """``enable_thinking``, and ``reasoning_effort`` for levels only."""
    if think is None:
        return {}
    level = {"reasoning_effort": think} if isinstance(think, str) else {}
    return {"enable_thinking": bool(think), **level}


def _message(message: Message) -> dict[str, Any]:
    """The message as chat templates know it: OpenAI's shape, arguments as an object."""
    value: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        value["tool_calls"] = [
            {
                "type": "function",
                "id": call.id,
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if message.tool_name:
        value["name"] = message.tool_name
    if message.tool_call_id:
        value["tool_call_id"] = message.tool_call_id
    return value


def _folded(messages: Sequence[Message]) -> list[Message]:
    """The conversation without system messages: their text opens the first user message."""
    system = system_text(messages)
    rest = [m for m in messages if m.role != "system"]
    if not system:
        return rest
    return merged([Message(rest[0].role if rest else "user", system), *rest])
