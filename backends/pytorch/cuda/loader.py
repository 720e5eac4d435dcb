"""From a GGUF file to the card's engine."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lhama.backends.pytorch.cuda import support
from lhama.backends.pytorch.cuda.cache import Cache
from lhama.backends.pytorch.cuda.compiling import compile_ahead
from lhama.backends.pytorch.cuda.engine import CudaEngine
from lhama.backends.pytorch.cuda.network import Loader
from lhama.backends.pytorch.cuda.pages import Pages
from lhama.backends.pytorch.cuda.reader import Reader
from lhama.backends.pytorch.cuda.steps import Sizes, Steps
from lhama.backends.pytorch.hyperparameters import Hyperparameters
from lhama.backends.pytorch.sampler import Sampler
from lhama.backends.pytorch.tokenizer import GGUFTokenizer
from lhama.plugins.backend import Limits, LoadOptions, Residency
from lhama.plugins.gguf import GGUF


def load(
    header: GGUF,
    shape: Hyperparameters,
    options: LoadOptions,
    device: torch.device,
    tokenizer: GGUFTokenizer,
    residency: Residency,
    loaded: Callable[[int], None],
    report: Callable[[str], None],
) -> CudaEngine:
    """``loaded`` is told of bytes read, ``report`` what else is done. On a processor (in tests) nothing runs ahead."""
    on_cuda = device.type == "cuda"
    slots, context = max(1, options.slots), options.context
    batch_tokens = support.batch_tokens(options)
    with torch.inference_mode():
        with Reader(header, device, loaded) as reader:
            network = Loader(header, shape, reader, device).network(context)
        pages = Pages(slots, context)
        quantised = options.kv_type == "q8_0"
        cache = Cache(shape, slots, pages.per_slot, pages.total, device, quantised=quantised)
        sampler = Sampler(slots, tokenizer.vocab, context, device, on_cuda)
        steps = Steps(
            network,
            cache,
            sampler.penalties.recent,
            context,
            Sizes(slots, batch_tokens),
            pdl=on_cuda and torch.cuda.get_device_capability(device) >= (9, 0),
        )
        if on_cuda:
            compile_ahead(steps.warm, report)
            steps.warm()
    limits = Limits(
        slots=slots,
        context=context,
        batch_tokens=batch_tokens,
        vocab=tokenizer.vocab,
        token_feed="device",
        late_mask=True,
        features=frozenset(("copy",)),
    )
    return CudaEngine(steps, cache, pages, sampler, tokenizer, limits, residency, device)
