"""The reference model's file: a GGUF whose metadata says how it behaves."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

from lhama.plugins import gguf

ARCHITECTURE = "reference"

RANK = 4
"""``pooling`` of a reranker, as in GGUF's ``pooling_type``."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What the engine does on purpose. Delays in microseconds; steps count from 1, 0 is never."""

    token_feed: str = "host"
    groups: int = 1
    """Of slots, see ``Limits.groups``."""
    prepare_us: int = 0
    compute_us: int = 0
    row_us: int = 0
    """Added for each token of a step."""
    period_us: int = 0
    """Steps end this far apart at least, whatever else they take: a device of constant speed."""
    result_us: int = 0
    """Added before a finished step's result is handed out."""
    jitter_seed: int = 0
    """Not 0: every delay is drawn from 0 to twice its value, by this seed."""
    end_after: int = 0
    """The mean length of an answer in tokens; 0: only ``num_predict`` and stop strings end it."""
    says: str = ""
    """Every answer, as far as no mask forbids it; empty: a hash decides."""
    load_us: int = 0
    memory_context: int = 0
    """The longest context that memory is enough for; 0: any."""
    fault: str = ""
    """``load``, ``prepare``, ``compute`` or ``row`` raise or report an error; ``crash`` kills the
    process by SIGKILL; ``hang`` never returns; ``lost`` is the end of the engine; ``shout`` writes a
    megabyte to stderr without ending the line; ``poison`` spoils a sequence from one token on, ``text``
    fails steps that embed one text, ``nan`` spoils vectors."""
    fault_step: int = 0
    """The step at which the fault happens; of ``poison`` and ``text``, the token."""
    pooling: int = 0
    """Not 0: the model serves embeddings only, or with ``RANK`` scores."""


def write(path: Path, behaviour: Behaviour = Behaviour(), *, context: int = 2048) -> None:
    """Write a model file that any lhama can register and load."""
    metadata: dict[str, str | int] = {
        "general.architecture": ARCHITECTURE,
        "general.name": "Reference",
        f"{ARCHITECTURE}.context_length": context,
        f"{ARCHITECTURE}.embedding_length": 8,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }
    for name, value in asdict(behaviour).items():
        if name == "pooling" and value:
            metadata[f"{ARCHITECTURE}.pooling_type"] = value
        elif value != getattr(Behaviour(), name):
            metadata[f"{ARCHITECTURE}.behaviour.{name}"] = value
    gguf.write(path, metadata, {"token_embd.weight": ((8, 4), "F32", bytes(8 * 4 * 4))})


def read_behaviour(path: str) -> Behaviour:
    """What a model file asks for; raises ``gguf.GGUFError``."""
    metadata = gguf.read(path).metadata
    given = {
        field.name: metadata[f"{ARCHITECTURE}.behaviour.{field.name}"]
        for field in fields(Behaviour)
        if f"{ARCHITECTURE}.behaviour.{field.name}" in metadata
    }
    given["pooling"] = metadata.get(f"{ARCHITECTURE}.pooling_type", 0)
    return Behaviour(**given)  # type: ignore[arg-type]
