"""What a request asks of a model, put into the wire's ``Prompt``."""

from __future__ import annotations

from lhama.daemon.durations import quote
from lhama.daemon.errors import LhamaError
from lhama.daemon.protocol import tools
from lhama.daemon.protocol.types import ChatRequest, GenerateRequest
from lhama.daemon.store import StoredModel
from lhama.daemon.wire.messages import Message, Prompt


def for_generate(
    request: GenerateRequest, model: StoredModel, think: bool | str | None, num_ctx: int
) -> Prompt:
    """Raw text, one run of a template (``template`` or ``suffix`` given), or a conversation of
    the model's own beginning and the prompt as the user's turn."""
    truncate = request.truncate is not False
    user = Message(role="user", content=request.prompt, images=request.images)
    if request.raw:
        return Prompt(raw=request.prompt, messages=[user], truncate=truncate, num_ctx=num_ctx)
    system = request.system or model.system
    # With `context` the conversation so far is in there already.
    stored = model.messages if request.context is None else ()
    return Prompt(
        messages=[*_system(system), *stored, user],
        renderer=model.renderer,
        go_template=request.template or model.template,
        parser=model.parser,
        fill=bool(request.template or request.suffix),
        text=request.prompt,
        system="" if request.suffix else system,
        suffix=request.suffix,
        think=_known_effort(model, think),
        think_by_default=request.think is None,
        context=request.context,
        truncate=truncate,
        num_ctx=num_ctx,
    )


def for_chat(
    request: ChatRequest, model: StoredModel, think: bool | str | None, num_ctx: int
) -> Prompt:
    """The model's SYSTEM, unless the request begins with its own, its MESSAGEs, the request's."""
    given = [tools.message(message) for message in request.messages]
    system = [] if given and given[0].role == "system" else _system(model.system)
    return Prompt(
        messages=[*system, *model.messages, *given],
        tools=[tools.tool(tool) for tool in request.tools],
        renderer=model.renderer,
        go_template=model.template,
        parser=model.parser,
        think=_known_effort(model, think),
        forget_thinking=model.config.model_family == "qwen3" or model.name.model == "deepseek-r1",
        truncate=request.truncate is not False,
        num_ctx=num_ctx,
    )


def grammar(form: bytes) -> str:
    """``format`` as the runner's grammar: empty, ``json``, or a JSON Schema's text.

    Raises ``LhamaError`` (500, as Ollama) for anything else.
    """
    text = form.decode("utf-8", "replace")
    if text in ("", "null", '""'):
        return ""
    if text == '"json"':
        return "json"
    if not text.startswith("{"):
        raise LhamaError(
            f'invalid format: {quote(text)}; expected "json" or a valid JSON Schema object'
        )
    return text


def _known_effort(model: StoredModel, think: bool | str | None) -> bool | str | None:
    """Harmony knows three levels of thinking."""
    return "high" if think == "max" and model.uses_harmony else think


def _system(text: str) -> list[Message]:
    return [Message(role="system", content=text)] if text else []
