"""``lhama-openai``: give a model of another server a local name."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lhama.daemon.config import BadSetting, Settings
from lhama.plugins import gguf
from lhama.plugins.backend import BackendError
from lhama_openai import settings
from lhama_openai.backend import ARCHITECTURE, CONTEXT, MODEL, SERVER
from lhama_openai.settings import Server
from lhama_openai.stream import complaint

SECONDS = 30
CAPABILITIES = ("tools", "thinking", "vision")


class Refused(Exception):
    """What the user is told instead of a traceback."""


def write(path: Path, server: str, model: str, context: int) -> None:
    """The file of a model that runs elsewhere: a name, and no address."""
    metadata: dict[str, str | int] = {
        "general.architecture": ARCHITECTURE,
        "general.name": model,
        SERVER: server,
        MODEL: model,
        CONTEXT: context,
    }
    gguf.write(path, metadata, {"elsewhere": ((1,), "I8", b"\0")})


def call(url: str, key: str, data: bytes | None = None) -> bytes:
    """One request. Raises ``Refused``."""
    request = urllib.request.Request(url, data)
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as reply:
            return bytes(reply.read())
    except urllib.error.HTTPError as error:
        text = error.read().decode("utf-8", "replace")
        try:
            text = complaint(json.loads(text))
        except ValueError:
            pass
        raise Refused(f"{url}: {text or error.reason} ({error.code})") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)  # what urllib wraps
        raise Refused(f"{url}: {getattr(reason, 'strerror', None) or reason}") from None


def listed(server: Server) -> list[str]:
    """The models a server has."""
    answer = json.loads(call(f"{server.url}/models", server.key))
    return [model["id"] for model in answer["data"]]


def add(name: str, server: Server, model: str, context: int, able: Sequence[str]) -> None:
    """Make the model on the lhama that ``OLLAMA_HOST`` means."""
    known = listed(server)
    if model not in known:
        raise Refused(f"{server.name} has no model {model!r}: it has {', '.join(known) or 'none'}")
    here = Settings.from_environment()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write(path, server.name, model, context)
        data = path.read_bytes()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    call(f"{here.url}/api/blobs/{digest}", here.api_key, data)
    body: dict[str, Any] = {"model": name, "files": {"model.gguf": digest}, "stream": False}
    body["info"] = {"capabilities": list(able), "context_length": context}
    call(f"{here.url}/api/create", here.api_key, json.dumps(body).encode())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Models of other servers under local names.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("models", help="what the servers have")
    adding = verbs.add_parser("add", help="give a server's model a local name")
    adding.add_argument("name")
    adding.add_argument("origin", metavar="SERVER/MODEL")
    adding.add_argument("--context", type=int, default=32768, help="tokens it can hold there")
    for capability in CAPABILITIES:
        adding.add_argument(f"--{capability}", action="store_true", help=f"it has {capability}")
    given = parser.parse_args(arguments)
    try:
        servers = settings.servers()
        if not servers:
            file = settings.path(os.environ)
            raise Refused(f"no server is set up: write {file}, or set LHAMA_OPENAI_GPU_URL")
        if given.verb == "models":
            for server in servers.values():
                print(*(f"{server.name}/{model}" for model in listed(server)), sep="\n")
            return
        where, _, model = given.origin.partition("/")
        if where not in servers:
            raise Refused(f"no server {where!r} is set up; there is {', '.join(servers)}")
        able = [capability for capability in CAPABILITIES if getattr(given, capability)]
        add(given.name, servers[where], model, given.context, able)
    except (Refused, BackendError, BadSetting) as problem:
        sys.exit(str(problem))
    print(f"{given.name} is {given.origin}")
