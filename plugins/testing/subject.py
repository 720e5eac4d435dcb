"""What a conformance suite is run on: the factory that a backend's author gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lhama.plugins.backend import Backend, Engine, LoadOptions, ModelFiles
from lhama.plugins.text import TextEngine

PROMPTS = (
    "The capital of France is the city of",
    "Once upon a time, in a small village,",
    "1, 2, 3, 4, 5, 6,",
    "A recipe for pancakes: take two eggs and",
)

OPTIONS = LoadOptions(slots=4, context=128, batch=64, threads=2)


@dataclass(frozen=True, slots=True)
class Subject:
    """A backend, models it runs, and how exact it is."""

    backend: Backend
    model: ModelFiles
    """One that generates."""
    options: LoadOptions = OPTIONS
    """At least two slots; small sizes, as contexts and batches are filled to the brim."""
    prompts: Sequence[str] = PROMPTS
    """Different beginnings, of at least six tokens each."""
    drift: float = 0.0
    """How far log-probabilities may move with the number of rows in a step. 0: a sequence gets the
    same tokens alone and in company, bit for bit. Otherwise tokens may differ from where the two
    best ones were closer than this, and draws are compared only alone."""
    poisoned: ModelFiles | None = None
    """A model whose logits are not finite after a prompt that ends with ``poison``."""
    poison: str = ""
    embedding: ModelFiles | None = None
    """A model that embeds."""
    ranking: ModelFiles | None = None
    """A model that ranks."""
    seeing: ModelFiles | None = None
    """A model that reads media, and ``picture``, a file's bytes for it."""
    picture: bytes = b""
    registered: bool = True
    """An installed distribution's entry point brings the backend."""

    def load(self, model: ModelFiles | None = None, *, embedding: bool = False) -> Engine:
        """An engine of ``model``, else of the one that generates."""
        options = self.options
        if embedding:
            options = LoadOptions(
                slots=1, context=64, batch=64, threads=options.threads, embedding=True
            )
        engine = self.backend.load(model or self.model, options, lambda share, what: None)
        assert not isinstance(engine, TextEngine), "a text engine has no steps to check"
        return engine
