"""From a request's model name to a stored model that can do what is asked, or Ollama's error.

Every route words its errors differently, and clients match on them: contract §1, "Name and
missing-model errors".
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from lhama.daemon.durations import quote
from lhama.daemon.errors import BadRequest, CloudDisabled, LhamaError, ModelNotFound, NotFound
from lhama.daemon.protocol.options import Options
from lhama.daemon.protocol.source import split_source
from lhama.daemon.scheduler import LoadRequest
from lhama.daemon.store import ModelName, Store, StoredModel
from lhama.daemon.web.service import Service


class NoModel(BadRequest):
    """A request without a model's name."""

    def __init__(self) -> None:
        super().__init__("model is required")


NO_CLOUD = "ollama cloud is disabled: remote model is unavailable"
NO_CLOUD_DETAILS = "ollama cloud is disabled: remote model details are unavailable"

RANK_POOLING = 4
"""``pooling_type`` of a model whose head scores a query and a document."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request's model name that can be one, and is none of the cloud's."""

    text: str
    """As the client spelled it: errors repeat it."""
    name: ModelName
    local: bool
    """Asked with ``:local``: what stands for a model elsewhere will not do."""


def asked(text: str, blank: LhamaError, elsewhere: str = NO_CLOUD) -> Asked:
    """Read the name of a request. Raises ``blank`` where there is none, and ``LhamaError``s;
    ``elsewhere`` is the text for a model in the cloud."""
    if not text.strip():
        raise blank
    name, source = split_source(text)
    parsed = ModelName.parse(name)
    if source == "cloud":
        raise CloudDisabled(elsewhere)
    return Asked(text, parsed, source == "local")


async def for_generate(service: Service, text: str) -> StoredModel:
    missing = _not_found(text)
    return await _stored(service, asked(text, NotFound(missing)), missing)


async def for_chat(service: Service, text: str) -> StoredModel:
    return await _stored(service, asked(text, NoModel()), _not_found(text))


def asked_for_embed(text: str) -> Asked:
    """The name alone: what is to be embedded is looked at before the store."""
    return asked(text, NotFound(_not_found(text)))


async def for_embed(service: Service, model: Asked) -> StoredModel:
    found = await _stored(service, model, _try_pulling(model.text))
    refuse_retired(found)
    return found


async def for_embeddings(service: Service, text: str) -> StoredModel:
    """The older route wants the name in the store's own spelling."""
    model, missing = asked(text, NoModel()), _try_pulling(text)
    if await asyncio.to_thread(service.store.catalogue.resolve, model.name) != model.name:
        raise ModelNotFound(missing)
    found = await _stored(service, model, missing)
    refuse_retired(found)
    return found


async def for_rerank(service: Service, text: str) -> StoredModel:
    model = await _stored(service, asked(text, NoModel()), _try_pulling(text))
    header = model.header()
    if header.get_int(header.key("pooling_type")) != RANK_POOLING:
        raise BadRequest(f"{quote(text)} does not support rerank")
    return model


def shown(text: str) -> Asked:
    """The name of a model that shall be described, wherever that is. Raises ``LhamaError``s."""
    return asked(text, NoModel(), elsewhere=NO_CLOUD_DETAILS)


def find_shown(store: Store, model: Asked) -> StoredModel:
    """The model, found by the spelling that is in use. Reads files: in a thread."""
    known = store.catalogue.resolve(model.name)
    found = store.get(known, missing=_not_found(known.short))
    if model.local and found.config.remote_host:
        raise ModelNotFound(_not_found(model.text.strip()))
    return found


def _not_found(text: str) -> str:
    return f"model '{text}' not found"


def _try_pulling(text: str) -> str:
    return f"model {quote(text)} not found, try pulling it first"


async def _stored(service: Service, model: Asked, missing: str) -> StoredModel:
    return await asyncio.to_thread(_read, service, model.name, missing, model.local)


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
    refuse_retired(model)
    have = model.capabilities
    if "completion" not in have:
        raise BadRequest(f"{quote(name)} does not support {verb}")
    wanted = [kind for kind, on in (("tools", tools), ("insert", insert)) if on]
    if missing := [kind for kind in wanted if kind not in have]:
        raise BadRequest(f"{model.name.full} does not support " + "\n".join(missing))


def refuse_retired(model: StoredModel) -> None:
    """Raise ``LhamaError`` for the first of the vision models, whose format nothing reads now."""
    if "mllama" in (model.config.model_families or ()) and model.projectors:
        raise LhamaError(
            "'llama3.2-vision' is no longer compatible with your version of Ollama and has been "
            "replaced by a newer version. To re-download, run 'ollama pull llama3.2-vision'"
        )


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
