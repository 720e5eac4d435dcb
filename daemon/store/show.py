"""What ``/api/show`` and ``/api/tags`` say of a model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from lhama.daemon.prompt.gotext import literal, sprint
from lhama.daemon.protocol import goencode, times
from lhama.daemon.store.details import Details, ListedDetails, details, listed_details
from lhama.daemon.store.model import NO_TEMPLATE, StoredModel
from lhama.plugins import gguf
from lhama.plugins.gguf import GGUF

_PARAMETER_WIDTH = 30


class ShownMessage(msgspec.Struct):
    role: str
    content: str


class ShownTensor(msgspec.Struct):
    name: str
    type: str
    shape: tuple[int, ...]


class ShowReply(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The answer of ``/api/show``; encode it with ``protocol.goencode``."""

    license: str = ""
    modelfile: str = ""
    parameters: str = ""
    template: str = ""
    system: str = ""
    details: Details
    messages: list[ShownMessage] = []
    remote_model: str = ""
    remote_host: str = ""
    model_info: dict[str, Any]
    projector_info: dict[str, Any] = {}
    tensors: list[ShownTensor] = []
    capabilities: list[str] = []
    modified_at: str
    requires: str = ""


class TagsEntry(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One model of ``/api/tags``."""

    name: str
    model: str
    remote_model: str = ""
    remote_host: str = ""
    modified_at: str
    size: int
    digest: str
    details: ListedDetails
    capabilities: list[str] = []


def show(
    model: StoredModel,
    *,
    verbose: bool = False,
    system: str = "",
    options: Mapping[str, Any] | None = None,
    basename: str = "",
) -> ShowReply:
    """All about a model. ``system`` and ``options`` stand in for its own in the Modelfile.

    ``verbose`` fills in the arrays (the vocabulary: megabytes). ``basename`` replaces
    ``general.basename``, for a client that takes it for the model's name. Blocks on the disk;
    raises ``StoreError`` for missing or damaged weights.
    """
    config = model.config
    system = system or model.system
    reply = ShowReply(
        license="\n".join(model.licenses),
        modelfile=_modelfile(model, system, {**model.parameters, **(options or {})}),
        parameters="\n".join(
            f"{name:<{_PARAMETER_WIDTH}} {literal(value)}"
            for name, value in _each(model.parameters)
        ),
        template=model.go_template or NO_TEMPLATE,
        system=system,
        details=details(model),
        messages=[ShownMessage(m.role, m.content) for m in model.messages],
        model_info={},
        capabilities=model.capabilities,
        modified_at=times.local(model.modified_ns),
        requires=config.requires,
    )
    if config.remote_host:
        reply.remote_host, reply.remote_model = config.remote_host, config.remote_model
        reply.model_info = _remote_info(model)
    else:
        header = _header(model.header(), verbose)
        if not model.template and model.chat_template:
            reply.template = model.chat_template
        reply.model_info = _info(header, verbose)
        reply.tensors = [ShownTensor(t.name, t.type_name, t.shape) for t in header.tensors.values()]
        if projectors := model.projector_headers():
            reply.projector_info = _info(_header(projectors[0], verbose), verbose)
    if basename:
        reply.model_info = dict(sorted({**reply.model_info, "general.basename": basename}.items()))
    return reply


def tags_entry(model: StoredModel) -> TagsEntry:
    """A model in a listing. Blocks on the disk for a header not read before."""
    return TagsEntry(
        name=model.name.short,
        model=model.name.short,
        remote_model=model.config.remote_model,
        remote_host=model.config.remote_host,
        modified_at=times.local(model.modified_ns),
        size=model.size,
        digest=model.digest,
        details=listed_details(model),
        capabilities=model.listed_capabilities,
    )


# --------------------------------------------------------------------------------- model_info


def _header(header: GGUF, verbose: bool) -> GGUF:
    """The vocabulary is read when it is asked for and not kept."""
    return gguf.read(header.path, vocabulary=True) if verbose else header


def _info(header: GGUF, verbose: bool) -> dict[str, Any]:
    """The metadata, sorted, with the parameters counted; arrays are ``null`` unless verbose."""
    info: dict[str, Any] = {"general.parameter_count": header.parameter_count}
    for key, value in header.metadata.items():
        if key in ("general.name", "tokenizer.chat_template"):
            continue
        if isinstance(value, list):
            info[key] = _array(value, header.types[key]) if verbose else None
        elif isinstance(value, gguf.ArrayStub):
            info[key] = None
        else:
            info[key] = _number(value, header.types[key]) if isinstance(value, float) else value
    return {key: info[key] for key in sorted(info, key=str.encode)}


def _array(values: list[Any], kind: str) -> Any:
    if kind == "[f32]" and all(map(math.isfinite, values)):
        return goencode.float32_list(values)
    if kind == "[str]":
        # Vocabularies hold bytes that are no text; Go writes U+FFFD for them.
        return [v.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for v in values]
    return [_number(v, kind[1:-1]) if isinstance(v, float) else v for v in values]


def _number(value: float, kind: str) -> Any:
    """A float as Go writes it; JSON has no word for infinity."""
    if not math.isfinite(value):
        return None
    if kind == "f32":
        # Its fewest digits as a float64: Go's limit of 1e-6 counts in float32 here.
        value = float(bytes(goencode.float32_list([value]))[1:-1])
    return goencode.raw_float(value)


def _remote_info(model: StoredModel) -> dict[str, Any]:
    """What a stub of a cloud model knows of it; without a family, nothing."""
    config = model.config
    if not config.model_family:
        return {}
    info: dict[str, Any] = {"general.architecture": config.model_family}
    if config.base_name:
        info["general.basename"] = config.base_name
    for key in ("context_length", "embedding_length"):
        if length := getattr(config, key):
            info[f"{config.model_family}.{key}"] = length
    return dict(sorted(info.items()))


# ---------------------------------------------------------------------------------- modelfile


def _modelfile(model: StoredModel, system: str, parameters: Mapping[str, Any]) -> str:
    """A Modelfile that would make this model again."""
    lines = [
        '# Modelfile generated by "ollama show"',
        "# To build a new Modelfile based on this, replace FROM with:",
        f"# FROM {model.name.short}",
        "",
        f"FROM {model.weights[0] if model.weights else ''}",
    ]
    lines += [f"ADAPTER {_quoted(str(path))}" for path in model.adapters]
    lines += [f"DRAFT {_quoted(str(path))}" for path in model.drafts[-1:]]
    lines += [f"FROM {path}" for path in model.projectors]
    lines.append(f"TEMPLATE {_quoted(model.go_template or NO_TEMPLATE)}")
    if system:
        lines.append(f"SYSTEM {_quoted(system)}")
    if model.config.renderer:
        lines.append(f"RENDERER {_quoted(model.config.renderer)}")
    if model.config.parser:
        lines.append(f"PARSER {_quoted(model.config.parser)}")
    lines += [f"PARAMETER {name} {_quoted(sprint(value))}" for name, value in _each(parameters)]
    lines += [f"LICENSE {_quoted(text)}" for text in model.licenses]
    lines += [f"MESSAGE {m.role} {_quoted(m.content)}" for m in model.messages]
    return "\n".join(lines) + "\n"


def _each(parameters: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Parameters sorted by name, one line each: a list has one for every element.

    Go's order is random; sorted is what its recordings happen to show.
    """
    for name in sorted(parameters):
        value = parameters[name]
        for item in value if isinstance(value, list) else [value]:
            yield name, item


def _quoted(text: str) -> str:
    """Quoted where the Modelfile's grammar needs it."""
    if "\n" in text or text.startswith(" ") or text.endswith(" "):
        return f'"""{text}"""' if '"' in text else f'"{text}"'
    return text
