"""From a request's model name to a stored model that can do what is asked, or Ollama's error.

Every route words its errors differently, and clients match on them: contract §1, "Name and
missing-model errors".
"""

from __future__ import annotations

import asyncio

from lhama.daemon.durations import quote
from lhama.daemon.errors import BadRequest, CloudDisabled, ModelNotFound, NotFound
from lhama.daemon.protocol.options import Options
from lhama.daemon.protocol.source import split_source
from lhama.daemon.scheduler import LoadRequest
from lhama.daemon.store import ModelName, StoredModel
from lhama.daemon.web.service import Service

NO_CLOUD = "ollama cloud is disabled: remote model is unavailable"
NO_CLOUD_DETAILS = "ollama cloud is disabled: remote model details are unavailable"

RANK_POOLING = 4
"""``pooling_type`` of a model whose head scores a query and a document."""


async def for_generate(service: Service, name: str) -> StoredModel:
    if not name.strip():
        raise NotFound("model '' not found")
    return await _find(service, name, f"model '{name}' not found")


async def for_chat(service: Service, name: str) -> StoredModel:
    if not name.strip():
        raise BadRequest("model is required")
    return await _find(service, name, f"model '{name}' not found")


async def for_embed(service: Service, name: str) -> StoredModel:
    if not name.strip():
        raise NotFound("model '' not found")
    return await _find(service, name, _try_pulling(name))


async def for_embeddings(service: Service, name: str) -> StoredModel:
    if not name.strip():
        raise BadRequest("model is required")
    return await _find(service, name, _try_pulling(name))


async def for_rerank(service: Service, name: str) -> StoredModel:
    if not name.strip():
        raise BadRequest("model is required")
    model = await _find(service, name, _try_pulling(name))
    header = model.header()
    if header.get_int(header.key("pooling_type")) != RANK_POOLING:
        raise BadRequest(f"{quote(name)} does not support rerank")
    return model


def shown_name(text: str) -> ModelName:
    """The name of a model that shall be described, wherever that is. Raises ``LhamaError``s."""
    name, source = split_source(text)
    if source == "cloud":
        raise CloudDisabled(NO_CLOUD_DETAILS)
    return ModelName.parse(name)


def _try_pulling(name: str) -> str:
    return f"model {quote(name)} not found, try pulling it first"


async def _find(service: Service, text: str, missing: str) -> StoredModel:
    name, source = split_source(text)
    if source == "cloud":
        raise CloudDisabled(NO_CLOUD)
    parsed = ModelName.parse(name)
    return await asyncio.to_thread(_read, service, parsed, missing, source == "local")


def _read(service: Service, name: ModelName, missing: str, local: bool) -> StoredModel:
    """Reads manifest, blobs and header: in a thread."""
    model = service.store.get(name, missing=missing)
    if model.config.remote_host:
        # A stub of a cloud model: present, but what it stands for is not here.
        raise ModelNotFound(missing) if local else CloudDisabled(NO_CLOUD)
    model.header()  # a damaged model says so here, not "does not support"
    _ = model.capabilities, model.template  # found from files once, then remembered
    return model


def think(
    model: StoredModel, name: str, asked: bool | str | None, *, relaxed: bool = False
) -> bool | str | None:
    """What the model is told about thinking: on by default where it can. ``relaxed``: one that
    cannot is not told, rather than refused."""
    can = "thinking" in model.capabilities
    if asked is None:
        return True if can else None
    if asked and not can and relaxed:
        return None
    if asked and not can:
        raise BadRequest(f"{quote(name)} does not support thinking")
    return asked


def require(
    model: StoredModel, name: str, verb: str, *, insert: bool = False, tools: bool = False
) -> None:
    """Raise ``BadRequest`` for what the model cannot do."""
    have = model.capabilities
    if "completion" not in have:
        raise BadRequest(f"{quote(name)} does not support {verb}")
    wanted = [kind for kind, on in (("tools", tools), ("insert", insert)) if on]
    if missing := [kind for kind in wanted if kind not in have]:
        raise BadRequest(f"{model.name.full} does not support " + "\n".join(missing))


def refuse_image_models(model: StoredModel) -> None:
    if "image" in model.capabilities:
        raise BadRequest("image generation models are not currently supported")


def load_request(model: StoredModel, chosen: Options) -> LoadRequest:
    """The part of the options that decides how the model is loaded."""
    return LoadRequest(
        num_ctx=chosen.num_ctx,
        num_batch=chosen.num_batch,
        num_gpu=chosen.num_gpu,
        main_gpu=chosen.main_gpu,
        use_mmap=chosen.use_mmap,
        num_thread=chosen.num_thread or None,
        embedding="completion" not in model.capabilities,
    )
