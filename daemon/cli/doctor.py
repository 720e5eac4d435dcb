"""``lhama doctor``: what this machine has, what is missing, and the command that mends it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil

from lhama.daemon.cli import output
from lhama.daemon.cli.client import Client
from lhama.daemon.config import Settings
from lhama.daemon.errors import LhamaError
from lhama.daemon.web import access
from lhama.plugins.manager import discover

State = Literal["ok", "note", "missing"]

LITTLE_DISK = 5 << 30
LITTLE_MEMORY = 2 << 30
FEW_FILES = 4096

WITH_CUDA = "CMAKE_ARGS=-DGGML_CUDA=on pip install --force-reinstall --no-deps --no-cache-dir llama-cpp-python"

PCI = Path("/sys/bus/pci/devices")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
NODES = Path("/dev")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``mend`` is a command, or what to do."""

    what: str
    state: State
    text: str
    mend: str = ""


def run(settings: Settings, *, as_json: bool = False) -> int:
    """Look at everything and show it; 1 if something is missing that models need."""
    found = examine(settings)
    if as_json:
        output.say(json.dumps([asdict(finding) for finding in found], indent=1))
    else:
        for finding in found:
            output.say(f"{finding.state:8}{finding.what}: {finding.text}")
            if finding.mend:
                output.say(f"{'':8}→ {finding.mend}")
    return int(any(finding.state == "missing" for finding in found))


def examine(settings: Settings) -> list[Finding]:
    """All findings, in the order in which they matter."""
    examinations: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        *(_plugins, _cards, _compilers, _memory, _store, _address, _keys, _files),
    )
    return [finding for examination in examinations for finding in examination(settings)]


def _plugins(settings: Settings) -> Iterator[Finding]:
    """Backends, their devices and drivers."""
    registry = discover(settings.blocked_plugins)
    runs = False
    for report in registry.reports:
        if report.error:
            yield Finding(f"plugin {report.name}", "note", report.error)
        for warning in report.warnings:
            yield Finding(f"plugin {report.name}", "note", warning)
    ours = {b for r in registry.reports if r.distribution == "lhama" for b in r.backends}
    for name, backend in registry.backends.items():
        found = registry.probe(backend)
        devices = ", ".join(f"{d.id} ({d.name})" for d in found.devices)
        runs = runs or bool(found.devices and name != "reference")
        if found.problem:
            mend = f"pip install 'lhama[{name}]'" if name in ours else ""
            text = found.problem.removesuffix(f": {mend}")  # it stands in the line below
            yield Finding(f"backend {name}", "note", text, mend)
        else:
            yield Finding(f"backend {name}", "ok", f"{found.version} on {devices}".strip())
        on_card = any(device.kind == "cuda" for device in found.devices)
        if name == "llamacpp" and found.devices and not on_card and _nvidia_cards():
            yield Finding("llama.cpp", "note", "it was built without CUDA", WITH_CUDA)
    if not runs:
        yield Finding(
            "backends", "missing", "none can run a model", "pip install 'lhama[llamacpp]'"
        )


def _cards(settings: Settings) -> Iterator[Finding]:
    """Drivers, and whether this user may open what they offer."""
    if _nvidia_cards() and not NVIDIA_DRIVER.exists():
        mend = "apt-get install nvidia-driver, then start the machine anew"
        yield Finding("NVIDIA driver", "note", "a card is there and no driver is loaded", mend)
    elif NVIDIA_DRIVER.exists():
        yield Finding("NVIDIA driver", "ok", NVIDIA_DRIVER.read_text().partition("\n")[0])
    for pattern in ("nvidia[0-9]*", "nvidiactl", "kfd", "dri/renderD*"):
        for node in sorted(NODES.glob(pattern)):
            if not os.access(node, os.R_OK | os.W_OK):
                mend = f"usermod -aG {node.stat().st_gid} $USER, then log in anew"
                yield Finding("card", "note", f"{node} is closed to you", mend)


def _nvidia_cards() -> list[Path]:
    """Of class 3, displays and 3D controllers."""
    return [
        device
        for device in PCI.glob("*")
        if (device / "vendor").read_text().strip() == "0x10de"
        and (device / "class").read_text().startswith("0x03")
    ]


def _compilers(settings: Settings) -> Iterator[Finding]:
    """llama.cpp is compiled when it is installed, kernels when they are first used."""
    found = [name for name in ("c++", "g++", "clang++") if shutil.which(name)]
    if found:
        yield Finding("C++ compiler", "ok", shutil.which(found[0]) or "")
    else:
        yield Finding(
            "C++ compiler", "note", "none: llama.cpp cannot be installed", "apt-get install g++"
        )
    if _nvidia_cards() and shutil.which("nvcc") is None:
        mend = "apt-get install nvidia-cuda-toolkit, before llama-cpp-python"
        yield Finding("CUDA compiler", "note", "no nvcc: llama.cpp is installed without CUDA", mend)


def _memory(settings: Settings) -> Iterator[Finding]:
    free = psutil.virtual_memory().available
    state: State = "ok" if free >= LITTLE_MEMORY else "note"
    yield Finding("memory", state, f"{free / 1e9:.1f} GB are free")


def _store(settings: Settings) -> Iterator[Finding]:
    """Where models lie: there, writable, with room."""
    folder = settings.models
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK):
        mend = f"chown -R $USER {there}, or set OLLAMA_MODELS to another folder"
        yield Finding("store", "missing", f"{folder} cannot be written", mend)
        return
    free = shutil.disk_usage(there).free
    text = f"{folder}, {free / 1e9:.1f} GB are free"
    yield Finding("store", "ok" if free >= LITTLE_DISK else "note", text)


def _address(settings: Settings) -> Iterator[Finding]:
    """Whether a daemon answers, or could."""
    try:
        version = Client(settings.url, settings.api_key).get("/api/version")["version"]
    except LhamaError as error:
        with socket.socket() as trial:
            taken = trial.connect_ex((_connectable(settings), settings.port)) == 0
        if taken:
            mend = "stop what has it, or choose another OLLAMA_HOST"
            yield Finding("port", "missing", f"{settings.address}: {error.message}", mend)
        else:
            yield Finding("daemon", "note", f"none at {settings.address}", "lhama serve")
    else:
        yield Finding("daemon", "ok", f"answers at {settings.url}, as Ollama {version}")
    if not access.is_loopback(settings.host) and not settings.api_keys:
        mend = "set LHAMA_API_KEYS, or OLLAMA_HOST=127.0.0.1"
        yield Finding(
            "access", "note", f"everybody who reaches {settings.address} may use it", mend
        )


def _connectable(settings: Settings) -> str:
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1"}.get(settings.host, settings.host)


def _keys(settings: Settings) -> Iterator[Finding]:
    """Files that only their owner should read."""
    for path in (settings.identity, settings.tls_key):
        if path is not None and path.exists() and path.stat().st_mode & 0o077:
            yield Finding("key", "note", f"others can read {path}", f"chmod 600 {path}")


def _files(settings: Settings) -> Iterator[Finding]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    few = hard != resource.RLIM_INFINITY and hard < FEW_FILES
    mend = f"ulimit -n {FEW_FILES}" if few else ""
    yield Finding("file descriptors", "note" if few else "ok", f"{hard} at most", mend)
