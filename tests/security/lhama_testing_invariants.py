"""What must hold for any bytes: hypothesis and atheris (``scripts/fuzz``) look for some that break it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lhama.daemon.errors import InvalidDigest, InvalidName, LhamaError
from lhama.daemon.prompt.gotemplate import compile_template
from lhama.daemon.protocol import gojson
from lhama.daemon.protocol.anthropic import reading as anthropic
from lhama.daemon.protocol.anthropic.requests import MessagesRequest
from lhama.daemon.protocol.openai import reading as openai
from lhama.daemon.protocol.openai.requests import ChatCompletionRequest
from lhama.daemon.protocol.openai.responses import reading as responses
from lhama.daemon.protocol.openai.responses.requests import ResponsesRequest
from lhama.daemon.protocol.types import (
    ChatRequest,
    CreateRequest,
    GenerateRequest,
    PullRequest,
    ShowRequest,
)
from lhama.daemon.store import Digest, ModelName, manifests
from lhama.plugins import gguf

REQUESTS: dict[Any, Callable[[Any], object]] = {
    **dict.fromkeys((ChatRequest, GenerateRequest, CreateRequest, PullRequest, ShowRequest), id),
    ChatCompletionRequest: openai.chat,
    ResponsesRequest: responses.chat,
    MessagesRequest: anthropic.chat,
}
"""Bodies by type, and what else reads them."""


def body(data: bytes) -> None:
    """A request, or an error with a 4xx status."""
    for kind, read in REQUESTS.items():
        status = 400
        try:
            read(gojson.decode(data, kind, empty="missing request body"))
        except LhamaError as error:
            status = error.status
        assert 400 <= status < 500


def name(text: str) -> None:
    """A path of four parts within the store, or no name."""
    try:
        found = ModelName.parse(text)
    except InvalidName:
        return
    assert not found.path.is_absolute()
    assert len(found.path.parts) == 4
    assert not {"..", "."} & set(found.path.parts)
    assert not set("\0\\/") & set("".join(found.parts))


def digest(text: str) -> None:
    """One file's name, or no digest."""
    try:
        found = Digest.parse(text)
    except InvalidDigest:
        return
    assert len(found.filename) == len("sha256-") + 64
    assert set(found.hex) <= set("0123456789abcdefABCDEF")


def manifest(data: bytes) -> None:
    try:
        found = manifests.decode(data)
    except LhamaError:
        return
    assert found.size >= 0
    assert all(len(digest.filename) == 71 for digest in found.digests)


def template(text: str) -> None:
    """Text, or an error, within its budget."""
    with contextlib.suppress(LhamaError):
        compile_template(text).execute({"Response": "", "Prompt": "x", "System": "", "Tools": []})


def header(data: bytes) -> None:
    """Everything it promises lies in the file, or it is refused."""
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(data)
        file.flush()
        for vocabulary in (False, True):
            try:
                found = gguf.read(Path(file.name), vocabulary=vocabulary)
            except gguf.GGUFError:
                continue
            for tensor in found.tensors.values():
                assert found.data_offset <= tensor.offset
                assert tensor.offset + tensor.nbytes <= found.file_size


def _text(check: Callable[[str], None]) -> Callable[[bytes], None]:
    return lambda data: check(data.decode("utf-8", "replace"))


BY_KIND: dict[str, Callable[[bytes], None]] = {
    "bodies": body,
    "gguf": header,
    "manifests": manifest,
    "names": lambda data: (_text(name)(data), _text(digest)(data))[0],
    "templates": _text(template),
}
"""By the folder of the corpus that an input belongs to."""
