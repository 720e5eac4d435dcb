"""``lhama show``: a model's metadata in sections, or one part of it alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from lhama.daemon.cli import output, pipelines
from lhama.daemon.cli.client import Client, Json
from lhama.daemon.errors import BadRequest, LhamaError
from lhama.daemon.protocol.pipelines import Verdict

LICENSE_LINES = 2
"""Lines of a license shown among other sections."""
LONGEST_VALUE = 60
"""Characters of a metadata value shown with ``--verbose``."""

Section: TypeAlias = tuple[str, list[Sequence[str]]]


def show(client: Client, model: str, parts: Sequence[str], verbose: bool = False) -> None:
    """Print the sections, or the one text field named in ``parts``."""
    if len(parts) > 1:
        raise BadRequest(
            "only one of '--license', '--modelfile', '--parameters', '--system', or '--template' "
            "can be specified"
        )
    answer = client.post("/api/show", {"model": model, "verbose": verbose})
    if parts:
        output.say(answer.get(parts[0], ""))
        return
    try:
        verdicts = pipelines.verdicts(client, model).verdicts
    except LhamaError:  # an Ollama, or a model that lies elsewhere
        verdicts = []
    output.say(render(answer, verdicts, verbose=verbose))


def render(answer: Json, verdicts: Sequence[Verdict] = (), *, verbose: bool = False) -> str:
    """The answer of ``/api/show`` as text, and which backends take the model: sections with
    indented columns."""
    blocks = []
    for title, rows in _sections(answer, verdicts, verbose):
        if rows:
            blocks.append(f"  {title}\n{output.table((), rows, indent=' ' * 4)}\n")
    return "\n".join(blocks)


def _sections(answer: Json, verdicts: Sequence[Verdict], verbose: bool) -> Iterator[Section]:
    yield "Model", _model(answer)
    yield "Backends", [(one.backend, str(one.score), one.reason) for one in verdicts]
    yield "Capabilities", [(name,) for name in answer.get("capabilities") or []]
    if projector := answer.get("projector_info"):
        yield "Projector", _projector(projector)
    yield "Parameters", [line.split(maxsplit=1) for line in _lines(answer.get("parameters", ""))]
    if verbose:
        yield "Metadata", _metadata(answer.get("model_info") or {})
        yield "Tensors", _tensors(answer.get("tensors") or [])
    yield "System", [(line,) for line in _lines(answer.get("system", ""))]
    license = _lines(answer.get("license", ""))
    shown = license[:LICENSE_LINES] + (["..."] if len(license) > LICENSE_LINES else [])
    yield "License", [(line,) for line in shown]


def _model(answer: Json) -> list[Sequence[str]]:
    info, details = answer.get("model_info") or {}, answer.get("details") or {}
    architecture = info.get("general.architecture", details.get("family", ""))
    rows = [
        ("architecture", architecture),
        ("parameters", details.get("parameter_size", "")),
        ("context length", info.get(f"{architecture}.context_length", "")),
        ("embedding length", info.get(f"{architecture}.embedding_length", "")),
        ("quantization", details.get("quantization_level", "")),
        ("requires", answer.get("requires", "")),
    ]
    return [(name, _number(value)) for name, value in rows if value]


def _projector(info: Json) -> list[Sequence[str]]:
    architecture = info.get("general.architecture", "")
    rows = [
        ("architecture", architecture),
        ("parameters", info.get("general.parameter_count", "")),
        ("embedding length", info.get(f"{architecture}.vision.embedding_length", "")),
        ("dimensions", info.get(f"{architecture}.vision.projection_dim", "")),
    ]
    return [(name, _number(value)) for name, value in rows if value]


def _metadata(info: Json) -> list[Sequence[str]]:
    return [(key, _short(value)) for key, value in sorted(info.items())]


def _tensors(tensors: list[Json]) -> list[Sequence[str]]:
    return [(t["name"], t["type"], str(list(t["shape"]))) for t in tensors]


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


def _number(value: object) -> str:
    return str(int(value)) if isinstance(value, float) else str(value)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
