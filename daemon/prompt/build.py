"""From a request to the tokens the engine starts with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lhama.daemon.errors import LhamaError
from lhama.daemon.prompt import fit, gotemplate, govalues, jinja
from lhama.daemon.prompt.conversation import (
    images,
    merged,
    newest_that_fit,
    system_text,
    with_image_markers,
    without_old_thinking,
)
from lhama.daemon.prompt.goparse import is_legacy
from lhama.daemon.prompt.parsers import inferred
from lhama.daemon.prompt.parsers.registry import PARSERS
from lhama.daemon.prompt.renderers import registry as renderers
from lhama.daemon.prompt.tools import read_all
from lhama.daemon.wire.messages import Message, Prompt
from lhama.plugins import gguf
from lhama.plugins.backend import Tokenizer

IMAGE_TOKENS = 768
"""What an image counts when history is truncated, for models with a projector."""
DEFAULT_THINK_LEVEL = "medium"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the model's file says about prompts."""

    architecture: str = ""
    jinja: str = ""
    """``tokenizer.chat_template``."""
    bos: int = -1
    eos: int = -1
    """Tokens whose text templates ask for; -1 for none."""
    projector: bool = False

    @classmethod
    def read(cls, weights: str, *, projector: bool = False) -> ModelFacts:
        """The facts in the header of the GGUF at ``weights``; none where it is no GGUF."""
        try:
            header = gguf.read(weights)
        except (gguf.GGUFError, OSError):
            return cls()
        return cls(
            architecture=header.architecture,
            jinja=header.get_str("tokenizer.chat_template"),
            bos=header.get_int("tokenizer.ggml.bos_token_id", -1),
            eos=header.get_int("tokenizer.ggml.eos_token_id", -1),
            projector=projector,
        )


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as text, and the pictures and sounds that its ``[img-N]`` stand for."""

    text: str
    images: list[bytes] = field(default_factory=list)
    whole: int = 0
    """Tokens of the conversation before messages were dropped; 0 if none was."""


@dataclass(frozen=True, slots=True)
class Built:
    """A prompt ready to run. ``text`` is what ``tokens`` were before they were cut to fit."""

    text: str
    tokens: list[int]
    images: list[bytes] = field(default_factory=list)
    truncated: int = 0
    """Tokens that were cut, messages and the middle of what was left of them."""


def build(
    prompt: Prompt,
    tokenizer: Tokenizer,
    facts: ModelFacts,
    limit: int,
    num_keep: int,
    shift: bool,
) -> Built:
    """Render, tokenize and fit a prompt.

    ``limit``: tokens the runner's context holds; ``prompt.num_ctx`` may be less. Raises
    ``LhamaError`` (template fails, ``context`` is of another model), ``BadRequest`` (prompt too
    long with ``shift`` off) and ``RunnerFailed`` (prompt beyond the context).
    """
    rendered = render(prompt, tokenizer, facts, limit)
    tokens = encode(prompt, rendered.text, tokenizer)
    whole = max(rendered.whole, len(tokens))
    if prompt.truncate and not rendered.images and _renders_here(prompt):
        tokens = fit.cut(
            tokens, _num_ctx(prompt, limit), num_keep, shift=shift, bos=_adds_bos(tokenizer)
        )
    fit.refuse_beyond(len(tokens), limit)
    return Built(rendered.text, tokens, rendered.images, whole - len(tokens))


def encode(prompt: Prompt, text: str, tokenizer: Tokenizer) -> list[int]:
    """The prompt's text as the engine gets it, one BOS at most in front."""
    text = without_bos(prompt, text, tokenizer)
    return tokenizer.encode(text, add_special=True, parse_special=True)


def without_bos(prompt: Prompt, text: str, tokenizer: Tokenizer) -> str:
    """``text`` without the BOS that the tokenizer will put there itself."""
    if not _adds_bos(tokenizer):
        return text
    written = renderers.find(prompt.renderer).bos if prompt.renderer else ""
    return text.removeprefix(written).removeprefix(_text(tokenizer, tokenizer.bos))


def render(prompt: Prompt, tokenizer: Tokenizer, facts: ModelFacts, limit: int) -> Rendered:
    """The prompt's text, history truncated to fit; what ``_debug_render_only`` shows."""
    before = _detokenized(prompt.context, tokenizer) if prompt.context else ""
    if prompt.raw is not None:
        return Rendered(prompt.raw, images(prompt.messages))
    if prompt.fill and prompt.go_template:
        return Rendered(before + _fill(prompt), images(prompt.messages))
    if prompt.fill:
        return Rendered(before + prompt.text, images(prompt.messages))
    if not (prompt.renderer or prompt.go_template or facts.jinja) and prompt.text:
        return Rendered(before + prompt.text, images(prompt.messages))
    messages, whole, text = prompt.messages, 0, ""
    if prompt.forget_thinking:
        messages = without_old_thinking(messages)
    if prompt.truncate:
        num_ctx = _num_ctx(prompt, limit)
        counts: list[int] = []  # the whole conversation's comes first
        texts: dict[int, str] = {}  # by their numbers of messages
        per_image = IMAGE_TOKENS if facts.projector else 0

        def fits(some: Sequence[Message]) -> bool:
            text = texts[len(some)] = _conversation(prompt, tokenizer, facts, some)
            count = len(tokenizer.encode(text, add_special=True, parse_special=True))
            counts.append(count)
            return count + per_image * len(images(some)) <= num_ctx

        kept = newest_that_fit(messages, fits)
        whole = counts[0] if len(kept) < len(messages) else 0
        messages, text = kept, texts.get(len(kept), "")
    text = text or _conversation(prompt, tokenizer, facts, messages)
    return Rendered(before + text, images(messages), whole=whole)


def _num_ctx(prompt: Prompt, limit: int) -> int:
    return min(prompt.num_ctx or limit, limit)


def _renders_here(prompt: Prompt) -> bool:
    """Whether Ollama would render this itself, and so cut it; the server that runs Jinja for it
    refuses long prompts instead."""
    rendered = prompt.renderer or prompt.go_template or prompt.fill or prompt.raw is not None
    return bool(rendered or prompt.text)


def _conversation(
    prompt: Prompt, tokenizer: Tokenizer, facts: ModelFacts, messages: Sequence[Message]
) -> str:
    chosen = inferred.choose(prompt, facts.jinja)
    parser = PARSERS[chosen.name] if chosen and chosen.whole else None
    tools = parser.declared(prompt.tools) if parser else prompt.tools
    bridge = parser.bridge(messages[-1]) if parser and prompt.answering and messages else ""
    if prompt.renderer:
        write = renderers.find(prompt.renderer).write
        return write(messages, read_all(tools), prompt.think) + bridge
    messages = with_image_markers(messages)
    if prompt.go_template:
        return run_go(prompt, messages, tools) + bridge
    if facts.jinja:
        template = jinja.compile_template(facts.jinja)
        bos, eos = _text(tokenizer, facts.bos), _text(tokenizer, facts.eos)
        return template.render(messages, tools, think=prompt.think, bos=bos, eos=eos) + bridge
    return _chatml(messages)


def run_go(
    prompt: Prompt, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()
) -> str:
    """``messages`` through the prompt's Go template."""
    template = gotemplate.compile_template(prompt.go_template)
    turns = merged(messages)
    if is_legacy(template.text):
        return _turn_by_turn(template, turns, prompt.think)
    return template.execute(
        {
            "System": system_text(messages),
            "Messages": govalues.messages(turns),
            "Tools": govalues.tools(tools),
            "Response": "",
            **_thinking(prompt.think),
        }
    )


def _fill(prompt: Prompt) -> str:
    """The Go template once over: with a suffix it sees prompt and suffix only."""
    if prompt.suffix and prompt.text:
        return gotemplate.compile_template(prompt.go_template).execute(
            {
                "Prompt": prompt.text,
                "Suffix": prompt.suffix,
                "Response": "",
                **_thinking(prompt.think),
            }
        )
    system = [Message("system", prompt.system)] if prompt.system else []
    messages = prompt.messages or [*system, Message("user", prompt.text)]
    return run_go(prompt, messages, prompt.tools)


def _turn_by_turn(
    template: gotemplate.GoTemplate, turns: Sequence[Message], think: bool | str | None
) -> str:
    """A legacy template: once for each turn of system, user and assistant, the last of them cut
    at ``.Response``."""
    text: list[str] = []
    turn = {"System": "", "Prompt": "", "Response": ""}
    thinking = _thinking(think)

    def flush() -> None:
        text.append(template.execute({**turn, **thinking}))
        turn.update(System="", Prompt="", Response="")

    for message in turns:
        if message.role == "system":
            if turn["Prompt"] or turn["Response"]:
                flush()
            turn["System"] = message.content
        elif message.role == "user":
            if turn["Response"]:
                flush()
            turn["Prompt"] = message.content
        elif message.role == "assistant":
            turn["Response"] = message.content
    text.append(template.execute_last({**turn, **thinking}))
    return "".join(text)


def _thinking(think: bool | str | None) -> dict[str, Any]:
    level = think if isinstance(think, str) else DEFAULT_THINK_LEVEL if think else ""
    return {"Think": bool(think), "ThinkLevel": level, "IsThinkSet": think is not None}


def _chatml(messages: Sequence[Message]) -> str:
    """What llama-server makes of a conversation for a model without any template."""
    turns = [f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in messages]
    return "".join([*turns, "<|im_start|>assistant\n"])


def _adds_bos(tokenizer: Tokenizer) -> bool:
    return tokenizer.add_bos and tokenizer.bos >= 0


def _text(tokenizer: Tokenizer, token: int) -> str:
    if not 0 <= token < tokenizer.vocab:
        return ""
    return tokenizer.piece(token, special=True).decode(errors="replace")


def _detokenized(tokens: Sequence[int], tokenizer: Tokenizer) -> str:
    """The text of ``context``. A token that the model does not have is refused in llama-server's
    words, which are its C++ library's."""
    for token in tokens:
        if not 0 <= token < tokenizer.vocab:
            raise LhamaError(
                'detokenize error: {"error":{"code":500,"message":"vector::_M_range_check: __n '
                f"(which is {_unsigned(token)}) >= this->size() (which is "
                f'{tokenizer.vocab})","type":"server_error"}}}}'
            )
    pieces = b"".join(tokenizer.piece(token, special=True) for token in tokens)
    return pieces.decode(errors="replace")


def _unsigned(token: int) -> int:
    """A token's 32 bits, read as a signed number, in 64 unsigned ones."""
    signed = (token + 2**31) % 2**32 - 2**31
    return signed % 2**64
