"""What the daemon and a runner say to each other. Types only; ``codec`` puts them on the socket.

These structs are also the daemon's common vocabulary: ``protocol`` and ``prompt`` use them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lhama.plugins.backend import LoadOptions, ModelFiles, Sampling

# ------------------------------------------------------------------------------------- content


class ToolCall(msgspec.Struct, omit_defaults=True):
    """A function call made by a model; ``arguments`` keep their order."""

    name: str
    arguments: dict[str, Any]
    index: int = 0
    id: str = ""


class Message(msgspec.Struct, omit_defaults=True):
    """One turn of a conversation. ``images`` are raw bytes."""

    role: str
    content: str = ""
    thinking: str = ""
    images: list[bytes] = []
    tool_calls: list[ToolCall] = []
    tool_name: str = ""
    tool_call_id: str = ""


class Prompt(msgspec.Struct, omit_defaults=True):
    """What to answer. The runner renders and tokenizes it: templates are untrusted content.

    Exactly one way applies, the first that is set:
    ``raw`` (the text as it is), ``fill`` (run the Go template once with prompt, system and
    suffix: generate with ``suffix`` or ``template``), else ``messages`` through the template.
    """

    messages: list[Message] = []
    tools: list[dict[str, Any]] = []
    renderer: str = ""
    """Name of a built-in prompt format; empty: a template renders."""
    go_template: str = ""
    """Go template text. Empty: the GGUF's own Jinja template; without one, the prompt as it is."""
    parser: str = ""
    """Name of a built-in output parser; empty or unknown: inferred from the template."""
    raw: str | None = None
    fill: bool = False
    text: str = ""
    """``.Prompt`` of ``fill``."""
    system: str = ""
    suffix: str = ""
    think: bool | str | None = None
    think_by_default: bool = False
    """Nobody asked to think: built-in parsers go by that (generate)."""
    answering: bool = False
    """The thinking is over or forbidden: what is generated is the answer itself."""
    forget_thinking: bool = False
    """Show earlier answers without the ``<think>`` block in their text."""
    context: list[int] | None = None
    """Tokens of an earlier answer, detokenized in front of the prompt (generate, deprecated)."""
    truncate: bool = True
    """Drop the oldest messages, then the oldest tokens, until the prompt fits."""
    num_ctx: int = 0
    """Tokens the prompt must fit in, where that is less than the runner's context; 0: the same."""


# ----------------------------------------------------------------------------- daemon → runner


class Load(msgspec.Struct, tag="load"):
    """First message on the wire; answered by ``LoadProgress``… and ``Loaded`` or ``LoadFailed``."""

    backend: str
    model: ModelFiles
    options: LoadOptions
    pipeline: str = "auto"
    """``auto``, ``on`` or ``off``, as the setting."""
    blocked_plugins: list[str] = []


class Generate(msgspec.Struct, tag="generate", omit_defaults=True):
    """Answered by ``Step`` frames that carry deltas of this ``id``, the last with ``done``."""

    id: int
    prompt: Prompt
    sampling: Sampling = Sampling()
    stop: list[str] = []
    num_predict: int = -1
    """Most tokens to generate; negative: no limit but the context's."""
    num_keep: int = 4
    shift: bool = True
    logprobs: int = -1
    """As ``Admit.logprobs``."""
    grammar: str = ""
    """``json``, or a JSON Schema's text; empty: none."""
    want_context: bool = False
    """Send the tokens of prompt and answer with ``done`` (generate's ``context``)."""


class Render(msgspec.Struct, tag="render"):
    """Answered by ``Rendered``: the prompt's text, nothing computed (``_debug_render_only``)."""

    id: int
    prompt: Prompt


class Embed(msgspec.Struct, tag="embed", omit_defaults=True):
    """Answered by ``Embedded`` frames."""

    id: int
    inputs: list[str]
    truncate: bool | None = None
    """Cut inputs that are too long, or refuse them; ``None``: pass them on as they are, and what
    the engine cannot take fails."""
    context: int = 0
    """Tokens an input may have, a BOS and an EOS counted."""
    batch: int = 0
    """What an input is cut to that is too long for the engine; 0: ``context``."""


class Rank(msgspec.Struct, tag="rank", omit_defaults=True):
    """Answered by ``Embedded`` frames, whose vectors are what the classifier gives each document."""

    id: int
    query: str
    documents: list[str]
    truncate: bool = True
    """Cut documents that are too long; else they are refused."""


class Cancel(msgspec.Struct, tag="cancel"):
    """The client has gone. Not answered: nothing more is sent for ``id``."""

    id: int


class Ping(msgspec.Struct, tag="ping"):
    id: int


class Observe(msgspec.Struct, tag="observe"):
    """Answered by ``Observed``: what the pipeline has done, and its last ``steps`` steps."""

    id: int
    steps: int = 0


class Arrange(msgspec.Struct, tag="arrange"):
    """Use another order from the next moment on in which no step is in flight. Not answered."""

    pipeline: str
    """``auto``, ``on`` or ``off``."""


class Shutdown(msgspec.Struct, tag="shutdown"):
    pass


ToRunner = Load | Generate | Render | Embed | Rank | Cancel | Ping | Observe | Arrange | Shutdown

# ----------------------------------------------------------------------------- runner → daemon


class LoadProgress(msgspec.Struct, tag="load_progress"):
    fraction: float
    note: str


class Loaded(msgspec.Struct, tag="loaded"):
    slots: int
    context: int
    device: str
    total_bytes: int
    device_bytes: int
    pipeline: str
    """Order of the halves in use: ``device``, ``host`` or ``off``."""
    embeds: bool = False
    ranks: bool = False
    notes: list[str] = []


class LoadFailed(msgspec.Struct, tag="load_failed"):
    message: str
    out_of_memory: bool = False


class TokenLogprob(msgspec.Struct, array_like=True):
    token: bytes
    logprob: float
    top: list[tuple[bytes, float]] = []


class Done(msgspec.Struct, array_like=True):
    """The end of one answer; counts in tokens, times in nanoseconds."""

    reason: str
    """``stop`` or ``length``."""
    prompt_tokens: int
    prompt_ns: int
    eval_tokens: int
    eval_ns: int
    context: list[int] = []
    cached_tokens: int = 0
    truncated_tokens: int = 0
    """Tokens of the prompt that were cut to make it fit."""


class Delta(msgspec.Struct, array_like=True):
    """One step's news of one request."""

    id: int
    content: str = ""
    thinking: str = ""
    tool_calls: list[ToolCall] = []
    logprobs: list[TokenLogprob] = []
    done: Done | None = None
    truncated_tokens: int = 0
    """As in ``Done``, in an answer's first delta: a client may learn of it before the end."""


class Step(msgspec.Struct, tag="step"):
    """All deltas of one step: one frame a step, however many rows it has."""

    deltas: list[Delta]


class Failed(msgspec.Struct, tag="failed"):
    """One request's end by an error; see ``errors.RunnerFailed`` for ``kind`` and ``details``."""

    id: int
    message: str
    status: int = 500
    kind: str = ""
    details: dict[str, int] = {}


class Rendered(msgspec.Struct, tag="rendered"):
    id: int
    text: str
    images: int = 0
    tokens: int = 0
    """What the text comes to, before anything is cut."""


class Embedded(msgspec.Struct, tag="embedded"):
    """A step's vectors of one request; its texts come in order, the last with ``done``."""

    id: int
    vectors: list[bytes]
    """Float32, as ``EmbedHandle.result`` gives them."""
    tokens: int
    done: bool
    truncated_tokens: int = 0
    """Cut of these texts to make them fit."""


class Pong(msgspec.Struct, tag="pong"):
    """Proof of life *and* of work: ``progress`` stands still while ``active`` > 0 in a hang."""

    id: int
    progress: int
    """Steps and other work begun so far."""
    active: int
    """Requests not answered yet."""


GAP_BOUNDS = tuple(n * 1000 for n in (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 50_000))
"""Upper bounds of the gap histogram's buckets, in nanoseconds; the last bucket has none."""


class Counters(msgspec.Struct):
    """Sums over all steps since the model was loaded; times in nanoseconds."""

    steps: int = 0
    rows: int = 0
    tokens: int = 0
    """Sampled."""
    prompt_tokens: int = 0
    """Computed, not found in the cache."""
    device_ns: int = 0
    gap_ns: int = 0
    """Time the device stood idle though there was work."""
    gaps: list[int] = []
    """Steps by the gap before them; bounds in ``GAP_BOUNDS``."""


class StepSpan(msgspec.Struct):
    """One step on the assembly line; ``times`` in nanoseconds of the runner's monotonic clock."""

    step: int
    rows: int
    tokens: int
    prompt_tokens: int
    times: list[int]
    """Begin and end of prepare, begin and end of enqueue, begin of the wait, result read,
    committed, emitted; 0 where it did not come there."""
    device_ns: int
    gap_ns: int
    group: int = 0


class Observed(msgspec.Struct, tag="observed"):
    id: int
    now_ns: int
    """The clock of ``spans``."""
    order: str
    """``device``, ``host`` or ``off``: the order in use now."""
    verdict: str
    """Why, where the runner has compared the orders; empty before."""
    running: int
    waiting: int
    counters: Counters
    spans: list[StepSpan]


FromRunner = (
    LoadProgress | Loaded | LoadFailed | Step | Failed | Rendered | Embedded | Pong | Observed
)
