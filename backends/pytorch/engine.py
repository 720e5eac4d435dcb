"""One loaded model: steps are staged on the host, then run in order on the device.

Both token feeds run the same two jobs for each step, ``forward`` and ``draw``. Only who calls
them differs: on CUDA the calling thread, which enqueues kernels and returns; elsewhere a thread
of the engine's own, whose queue takes the part of CUDA's stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from lhama.backends.pytorch.batch import Batch
from lhama.backends.pytorch.decoder import Decoder
from lhama.backends.pytorch.handle import Handle, Inline, Worker, told
from lhama.backends.pytorch.kv_cache import KVCache
from lhama.backends.pytorch.sampler import Drawn, Request, Sampler, Turn
from lhama.backends.pytorch.tokenizer import GGUFTokenizer
from lhama.plugins.backend import (
    DROPPED,
    BackendError,
    EmbedHandle,
    Limits,
    PreparedStep,
    Residency,
    StepPlan,
)

History = tuple[torch.Tensor, torch.Tensor]


@dataclass(slots=True)
class Prepared:
    """A staged step; its pending tokens are missing."""

    plan: StepPlan
    batch: Batch
    turns: list[Turn]
    request: Request
    histories: list[History]
    """What new sequences' penalties look back on."""


class PyTorchEngine:
    """``lhama.plugins.backend.Engine`` on one device."""

    def __init__(
        self,
        model: Decoder,
        cache: KVCache,
        tokenizer: GGUFTokenizer,
        device: torch.device,
        residency: Residency,
        *,
        batch_tokens: int,
        threads: int = 0,
        token_feed: Literal["device", "host"] | None = None,
    ) -> None:
        """``token_feed`` defaults to the device's own: ``device`` on CUDA, ``host`` elsewhere."""
        on_cuda = device.type == "cuda"
        self.limits = Limits(
            slots=cache.slots,
            context=cache.context,
            batch_tokens=batch_tokens,
            vocab=tokenizer.vocab,
            token_feed=token_feed or ("device" if on_cuda else "host"),
            shares_cores=device.type == "cpu",
            late_mask=True,
            features=frozenset(("copy",)),
        )
        self.residency = residency
        self.tokenizer = tokenizer
        self._model = model
        self._cache = cache
        self._device = device
        self._pinned = on_cuda
        self._sampler = Sampler(cache.slots, tokenizer.vocab, cache.context, device, on_cuda)
        self._last_token = torch.zeros(cache.slots, dtype=torch.int64, device=device)
        self._runs: Inline | Worker = Inline(device) if on_cuda else Worker("pytorch", threads)

    # --------------------------------------------------------------------------- the two halves

    @told()
    def prepare_next(self, plan: StepPlan, previous: PreparedStep | None) -> Prepared:
        batch = Batch.build(plan.rows, self.limits.context, self._pinned)
        if len(batch.ids) > self.limits.batch_tokens:
            raise BackendError(
                f"{len(batch.ids)} tokens exceed the batch's {self.limits.batch_tokens}"
            )
        if any(span.length > self.limits.context for span in batch.spans):
            raise BackendError(f"a row goes beyond the context of {self.limits.context}")
        histories: list[History] = []
        for admit in plan.admits:
            self._sampler.admit(admit)
            history = self._sampler.penalties.history(admit)
            if history is not None:
                histories.append(history)
        turns = self._sampler.turns(plan.rows)
        return Prepared(plan, batch, turns, self._sampler.stage(turns), histories)

    @told()
    def compute_current(self, prepared: PreparedStep, tokens: Sequence[int]) -> Handle:
        assert isinstance(prepared, Prepared)
        batch, request = prepared.batch, prepared.request
        if DROPPED in tokens:
            alive = [token != DROPPED for token in tokens]
            rows = [row for row, keep in zip(batch.rows, alive, strict=True) if keep]
            tokens = [token for token in tokens if token != DROPPED]
            batch = Batch.build(rows, self.limits.context, self._pinned)
            dropped = {
                (row.slot, row.epoch)
                for row, keep in zip(prepared.plan.rows, alive, strict=True)
                if not keep
            }
            request = self._sampler.stage(
                [t for t in prepared.turns if (t.row.slot, t.row.epoch) not in dropped]
            )
        if self.limits.token_feed == "host":
            batch.bind(tokens)
        handle = Handle(self._device)
        masked = any(row.masked for row in prepared.plan.rows)

        def forward() -> None:
            handle.start()
            for operation in prepared.plan.kv:
                self._cache.apply(operation)
            for history in prepared.histories:
                self._sampler.penalties.fill(*history)
            handle.logits = self._forward(batch)

        def draw(masks: Mapping[int, bytes]) -> None:
            if handle.logits is None:
                handle.finish(request, None)
                return
            drawn = self._draw(handle.logits, request, masks)
            handle.finish(request, drawn)

        self._runs.submit(handle, forward)
        if masked:
            handle.when_masked = lambda masks: self._runs.submit(handle, lambda: draw(masks))
        else:
            self._runs.submit(handle, lambda: draw({}))
        return handle

    def _forward(self, batch: Batch) -> torch.Tensor | None:
        """Logits [sampling rows, vocab]; ``None`` where no row samples."""
        if not batch.rows:
            return None
        batch = batch.to(self._device)
        ids = torch.where(
            batch.sources < 0, batch.ids, self._last_token[batch.sources.clamp_min(0)]
        )
        hidden = self._model.forward(batch, ids, self._cache)
        return self._model.logits(hidden[batch.outputs]) if len(batch.outputs) else None

    def _draw(self, logits: torch.Tensor, request: Request, masks: Mapping[int, bytes]) -> Drawn:
        request = request.to(self._device)
        allowed = {
            # A row without a mask has ended meanwhile; nothing is drawn freely for it.
            index: self._upload(unpack(masks.get(row.slot, bytes(4)), self.limits.vocab))
            for index, row in enumerate(request.rows)
            if row.masked
        }
        drawn = self._sampler.draw(logits, request, allowed)
        self._last_token[request.slots] = drawn.tokens
        return drawn

    def _upload(self, tensor: torch.Tensor) -> torch.Tensor:
        staged = tensor.pin_memory() if self._pinned else tensor
        return staged.to(self._device, non_blocking=True)

    def embed(self, inputs: Sequence[Sequence[int]]) -> EmbedHandle:
        raise BackendError("this model does not support embeddings")

    def close(self) -> None:
        self._runs.close()
        del self._model, self._cache, self._sampler
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def unpack(mask: bytes, vocab: int) -> torch.Tensor:
    """The bits of a token mask: bool [vocab]; tokens beyond its end are not allowed."""
    words = torch.frombuffer(bytearray(mask), dtype=torch.int32)
    bits = (words.unsqueeze(1) >> torch.arange(32, dtype=torch.int32)) & 1
    allowed = torch.zeros(vocab, dtype=torch.bool)
    known = min(vocab, bits.numel())
    allowed[:known] = bits.flatten()[:known].bool()
    return allowed
