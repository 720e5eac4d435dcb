"""The contract between lhama's core and a backend.

A **backend** describes what it can run and loads models; an **engine** is one loaded model. The
core owns sequences, slots and admission; the engine owns tensors and the KV cache. Every step of
generation is cut in two halves, which the core runs at the same time:

- ``prepare_next(plan, previous)`` builds the batch of step N+1 on the CPU, while
- the device still works on step N, which ``compute_current(prepared, tokens)`` started.

Only plain data crosses this line: standard library types, no numpy, no torch. A backend module
that registers itself must import nothing native; ``Backend.load`` is the place for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from lhama.plugins.text import TextEngine

API_VERSION = 1
"""Version of this contract: it goes up when an old backend would not do any more. What is added with
a default, or may be left out, changes nothing."""

OLDEST_API_VERSION = 1
"""Versions from here on are still spoken, and those below ``API_VERSION`` warned of. The core refuses
a backend built for any other, in words."""

DROPPED = -1
"""In the ``tokens`` of ``compute_current``: this row's sequence has ended, compute nothing for it."""


class BackendError(Exception):
    """A backend could not do what was asked; the message is shown to the user as it is."""


class UnsupportedModel(BackendError):
    """The model's architecture, tensor types or shapes are not supported by this backend."""


class OutOfMemory(BackendError):
    """Loading or computing needs more memory than there is; the message names both, in bytes."""


class EngineLost(BackendError):
    """The engine can do nothing any more, as when its device failed beneath it. The runner's process
    ends with all its requests, and the next request gets a fresh one."""


# --------------------------------------------------------------------------- what a machine offers


@dataclass(frozen=True, slots=True)
class Device:
    """One place a model can run. ``free_bytes`` is a reading, not a promise."""

    id: str
    """``cpu``, ``cuda:0``, ``metal:0`` …"""
    kind: Literal["cpu", "cuda", "metal"]
    name: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Probe:
    """What a backend found on this machine; ``problem`` says why it cannot run, if it cannot."""

    devices: tuple[Device, ...] = ()
    problem: str = ""
    version: str = ""
    """Version of the engine library behind the backend."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of one model, by absolute path. Read headers with ``lhama.plugins.gguf``."""

    name: str
    weights: str
    adapters: tuple[str, ...] = ()
    projectors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Support:
    """How well a backend runs a model here. The core takes the highest score.

    0 refuses (``reason`` says why), 50 is "runs it", 100 is "the best choice on this machine".
    """

    score: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load a model. Sizes in tokens; 0 or ``None`` leaves the choice to the backend."""

    slots: int = 1
    """Sequences that may run at once."""
    context: int = 4096
    """Tokens each sequence may hold (prompt and answer)."""
    batch: int = 512
    """Most tokens in one step."""
    gpu_layers: int = -1
    """Layers on the accelerator: -1 as many as fit, 0 none."""
    main_gpu: int = 0
    threads: int = 0
    mmap: bool | None = None
    kv_type: str = "f16"
    flash_attention: bool | None = None
    embedding: bool = False
    """The model serves ``embed`` only; ``batch`` then bounds one text, as its tokens are computed
    together, and the backend chooses how many texts make a step."""
    gpu_overhead_bytes: int = 0
    """Accelerator memory to leave free."""


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes a load will take, before anything is taken."""

    weights_bytes: int
    kv_bytes: int
    compute_bytes: int
    device_bytes: int = 0
    """The part of the sum that lies in accelerator memory."""

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.compute_bytes


Progress: TypeAlias = Callable[[float, str], None]
"""Called by ``load`` with a share in 0..1 and what is being done. Cheap to call often."""


# ------------------------------------------------------------------------------------- one step


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn; the chain and its order are llama.cpp's.

    penalties → top_k → typical_p → top_p → min_p → temperature → draw. ``temperature <= 0`` is
    greedy. ``seed`` is always given: the core draws one where the user did not.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Admit:
    """A new sequence takes a slot; whatever sampled there before is gone."""

    slot: int
    epoch: int
    sampling: Sampling
    history: tuple[int, ...]
    """The prompt's tokens, oldest first: what penalties look back on."""
    logprobs: int = -1
    """Alternatives to report with each token; 0 the token's own only, -1 none."""


@dataclass(frozen=True, slots=True)
class Trim:
    """Forget the slot's cached positions from ``length`` on."""

    slot: int
    length: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Make ``target``'s cache equal to the first ``length`` positions of ``source``'s."""

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class Shift:
    """Drop positions ``keep .. keep+discard-1`` and move the later ones down by ``discard``."""

    slot: int
    keep: int
    discard: int


KvOp: TypeAlias = Trim | Copy | Shift


@dataclass(frozen=True, slots=True)
class Media:
    """A picture or a sound inside a prompt, as an engine that ``ReadsMedia`` has it."""

    digest: str
    """Equal for equal content in an equal place, and for no other."""
    positions: int
    """It takes in the context."""
    content: Any = field(compare=False)
    """The engine's own."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence's share of a step: some prompt tokens, a medium, or one generated token."""

    slot: int
    epoch: int
    """Counts the slot's occupants, so that a late result can be told from a new sequence's."""
    position: int
    """Position of the first token."""
    tokens: tuple[int, ...] = ()
    """Known tokens. Empty: the one token that the step before samples for this slot."""
    sample: bool = True
    """Sample after the last token. False for all but the last chunk of a prompt."""
    masked: bool = False
    """A token mask will come through ``StepHandle.supply_masks`` before sampling."""
    media: Media | None = None
    """Computed in place of tokens, of which the row then has none; never sampled from."""

    @property
    def size(self) -> int:
        """Positions the row takes."""
        return self.media.positions if self.media is not None else len(self.tokens) or 1


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step, decided by the core. Order of execution: ``kv``, ``admits``, ``rows``.

    A slot has one row at most, and the rows come in the order of their slots.
    """

    step: int
    rows: tuple[Row, ...]
    kv: tuple[KvOp, ...] = ()
    admits: tuple[Admit, ...] = ()
    group: int = 0
    """Of the slots in it, see ``Limits.groups``."""


@dataclass(frozen=True, slots=True)
class RowResult:
    """What one sampling row gave. ``error`` ends that row's request and no other's."""

    slot: int
    epoch: int
    token: int
    logprob: float | None = None
    """Natural log of the token's softmax probability over the raw logits."""
    top: tuple[tuple[int, float], ...] = ()
    """The most probable tokens and their log-probabilities, descending."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class StepResult:
    """Results of the rows that sample, in the plan's order; dropped rows have none."""

    rows: tuple[RowResult, ...]
    compute_ns: int = 0
    """Time the device was busy with this step, as well as the engine can tell."""
    idle_ns: int = -1
    """Time the device stood idle before this step, where the engine measures it; -1: the core
    reckons it from when the halves were called."""


class PreparedStep(Protocol):
    """What ``prepare_next`` returns: the engine's own, opaque but for its plan."""

    @property
    def plan(self) -> StepPlan: ...


class StepHandle(Protocol):
    """A step in flight."""

    def result(self) -> StepResult:
        """Wait for the step and return its results; the contract's only wait.

        Called once. Raises ``BackendError`` if the step as a whole failed.
        """
        ...

    def supply_masks(self, masks: Mapping[int, bytes]) -> None:
        """Give the masked rows their masks: slot → bit set, 32-bit little-endian words, bit t of
        the set allows token t. Called once, from another thread perhaps, for every plan with a
        masked row and for no other; sampling waits for it, the forward pass does not. A masked
        row without a mask has ended meanwhile: whatever it gives is not used, but it is not
        drawn freely."""
        ...


class EmbedHandle(Protocol):
    """Texts on their way through the engine."""

    def result(self) -> list[bytes]:
        """Wait for the step; a vector for each text, in order: float32 in the machine's byte order.

        Vectors are not normalised. A model that ranks gives its classifier's outputs. Called once.
        Raises ``BackendError`` if the step as a whole failed.
        """
        ...


# ------------------------------------------------------------------------------- a loaded model


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine can take; fixed for its life."""

    slots: int
    """Sequences at once; of an engine that embeds, texts in one step."""
    context: int
    """Tokens of one sequence or text."""
    batch_tokens: int
    """Tokens of one step."""
    vocab: int
    token_feed: Literal["device", "host"] = "host"
    """``device``: the engine keeps the sampled token and feeds it to the next step by itself, so
    steps may be enqueued before the last one's result is read. ``host``: the core passes it."""
    groups: int = 1
    """The slots fall into so many equal groups, the first of them group 0. A step has rows of one
    group, and nothing of another's: it may be enqueued while a step of another group is in flight.
    ``slots`` is a multiple; nothing is copied from group to group."""
    shares_cores: bool = False
    """The model computes on the processor, so that overlapping takes cores from it: the core tries
    whether it pays."""
    ragged: bool = True
    """Prompt pieces of different lengths are computed in one pass. False: equal ones are, so the
    core cuts the prompts of a step to equal pieces."""
    prompt_share: float = 0.25
    """The part of a step's tokens that prompts may have while most requests generate: the less, the
    steadier their streams; the more, the sooner a new one begins."""
    late_mask: bool = False
    """Rows may be ``masked``."""
    features: frozenset[str] = frozenset()
    """Of ``shift`` (KvOp Shift), ``copy`` (KvOp Copy), ``media`` (``ReadsMedia``); or ``embed``
    (serves ``embed`` and no steps), with ``rank`` if its vectors are scores of a query and a
    document."""


@dataclass(frozen=True, slots=True)
class Residency:
    """Where a loaded model lies."""

    device: str
    total_bytes: int
    device_bytes: int
    gpu_layers: int = 0
    notes: tuple[str, ...] = field(default=())


class Tokenizer(Protocol):
    """Text to token ids and back. Safe to call from any thread, also during a step."""

    @property
    def vocab(self) -> int: ...

    @property
    def bos(self) -> int:
        """The beginning-of-sequence token, or -1."""
        ...

    @property
    def add_bos(self) -> bool:
        """Whether ``encode(add_special=True)`` puts ``bos`` first."""
        ...

    @property
    def add_eos(self) -> bool: ...

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a generation (EOS, EOT …)."""
        ...

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of ``text``; ``parse_special`` reads ``<|im_end|>`` and its like as tokens."""
        ...

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes a token stands for; a control token's own text only if ``special``."""
        ...


class Engine(Protocol):
    """One loaded model. One thread calls the two halves; ``tokenizer`` may be used from any."""

    @property
    def limits(self) -> Limits: ...

    @property
    def residency(self) -> Residency: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    def prepare_next(self, plan: StepPlan, previous: PreparedStep | None) -> PreparedStep:
        """Build everything of a step but the tokens not known yet. CPU only; never waits on the
        device, never touches the device's state: the step before may still run.

        ``previous`` is the step in flight, or ``None``. At most two steps exist at once.
        """
        ...

    def compute_current(self, prepared: PreparedStep, tokens: Sequence[int]) -> StepHandle:
        """Enqueue a prepared step and return at once.

        ``tokens`` has one entry for each row, in order. ``host`` feed: the token of a row whose
        ``tokens`` are empty, 0 for the others. ``device`` feed: 0. Either: ``DROPPED``.
        """
        ...

    def embed(self, inputs: Sequence[Sequence[int]]) -> EmbedHandle:
        """Enqueue tokenized texts and return at once: embedding's ``compute_current``.

        At most ``limits.slots`` texts of 1 to ``limits.context`` tokens, and ``limits.batch_tokens``
        together unless it is one text alone. Raises ``BackendError`` for others, and where the
        model gives no embeddings.
        """
        ...

    def close(self) -> None:
        """Release everything. No step is in flight. Called once."""
        ...


@runtime_checkable
class ReadsMedia(Protocol):
    """An engine whose model sees pictures or hears sounds, beside ``Engine``."""

    def read_prompt(self, parts: Sequence[str | bytes]) -> list[int | Media]:
        """Tokenize a prompt of text and media (files' bytes) in turn, special tokens in front.

        Safe to call from any thread. Raises ``BackendError`` for media it cannot read.
        """
        ...


class Backend(Protocol):
    """What a plugin registers. Light to create: the daemon does it at every start."""

    @property
    def name(self) -> str:
        """Short and unique: ``llamacpp``."""
        ...

    @property
    def api_version(self) -> int:
        """The ``API_VERSION`` this backend was written for."""
        ...

    def probe(self) -> Probe:
        """What this machine offers this backend. Imports no engine; under 50 ms."""
        ...

    def supports(self, model: ModelFiles) -> Support:
        """Whether and how well this backend runs the model here. Reads headers only."""
        ...

    def estimate(self, model: ModelFiles, options: LoadOptions) -> MemoryEstimate:
        """What loading would take. Reads headers only."""
        ...

    def load(
        self, model: ModelFiles, options: LoadOptions, progress: Progress
    ) -> Engine | TextEngine:
        """Load in the runner process, the only place where native code is imported.

        A model that runs elsewhere is a ``lhama.plugins.text.TextEngine``.

        Raises ``UnsupportedModel``, ``OutOfMemory`` or ``BackendError``.
        """
        ...
