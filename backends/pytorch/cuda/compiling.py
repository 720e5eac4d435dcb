"""Compiles a model's kernels: the first time in parallel processes, later from the cache folder.

``python -m lhama.backends.pytorch.cuda.compiling ARCHITECTURE`` is one of the processes: it reads
what to compile from its standard input and leaves it in Triton's cache. It needs no card.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import platformdirs

WORTH_A_PROCESS: Final = 3
"""Kernels that one process compiles, at least: it takes seconds to start."""
MOST: Final = 16
# fmt: off
MODULES: Final = (
    "asm", "dot", "one_row", "many_rows", "experts", "attention", "prompts", "mixing", "sampling",
)
# fmt: on
"""Of kernels; each calls only those before it."""


def use_cache_folder() -> Path:
    """Where compiled kernels are kept; call before Triton is imported."""
    folder = os.environ.setdefault(
        "TRITON_CACHE_DIR", str(Path(platformdirs.user_cache_dir("lhama")) / "triton")
    )
    return Path(folder)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One kernel with its constants, in Triton's words."""

    module: str
    name: str
    data: str
    stamp: str


def compile_ahead(run: Callable[[], None], report: Callable[[str], None]) -> int:
    """Compile all kernels that ``run`` launches, without launching any; how many were new.

    ``run`` is called once, with launches that do nothing.
    """
    _fix_keys()
    wanted = _gather(run)
    known = use_cache_folder() / "lhama-known"
    missing = [one for one in wanted if not (known / one.stamp).exists()]
    count = min(MOST, len(missing) // WORTH_A_PROCESS, os.cpu_count() or 1)
    if count > 1:
        report(f"compiling {len(missing)} kernels")
        _in_processes(missing, count)
    known.mkdir(parents=True, exist_ok=True)
    for one in missing:  # the few that are left are compiled when they are launched
        (known / one.stamp).touch()
    return len(missing)


def _fix_keys() -> None:
    """Ask for the keys of all kernels in one order, so that all processes find the same ones.

    Triton's key of a function that calls others depends on whether theirs were asked for before.
    """
    from triton.runtime.jit import JITCallable

    package = f"{__package__}.kernels"
    for name in MODULES:
        for one in vars(import_module(f"{package}.{name}")).values():
            if isinstance(one, JITCallable):
                assert one.cache_key


def _gather(run: Callable[[], None]) -> list[Wanted]:
    from triton import __version__, knobs

    found: list[Wanted] = []

    def note(*, fn: Any, compile: dict[str, Any], **_: Any) -> bool:
        data = str(compile["specialization_data"])
        source = f"{__version__} {fn.jit_function.cache_key} {data}"
        stamp = hashlib.sha256(source.encode()).hexdigest()
        found.append(Wanted(fn.module, fn.name, data, stamp))
        return True  # neither compile nor launch

    before, knobs.runtime.jit_cache_hook = knobs.runtime.jit_cache_hook, note
    try:
        run()
    finally:
        knobs.runtime.jit_cache_hook = before
    return list({one.stamp: one for one in found}.values())


def _in_processes(wanted: list[Wanted], count: int) -> None:
    import torch

    major, minor = torch.cuda.get_device_capability()
    command = [sys.executable, "-P", "-m", __spec__.name, str(major * 10 + minor)]
    processes = []
    for index in range(count):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
        assert process.stdin is not None
        share = [[one.module, one.name, one.data] for one in wanted[index::count]]
        process.stdin.write(json.dumps(share))
        process.stdin.close()
        processes.append(process)
    for process in processes:
        # A failure shows again, with its reason, when the kernel is launched.
        process.wait()


class _NoCard:
    """Stands for Triton's driver: all that compiling asks of one."""

    def __init__(self, architecture: int) -> None:
        from triton.backends.compiler import GPUTarget

        self._target = GPUTarget("cuda", architecture, 32)

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def main() -> None:
    from triton.runtime import driver

    driver.set_active(_NoCard(int(sys.argv[1])))
    _fix_keys()
    for module, name, data in json.load(sys.stdin):
        getattr(import_module(module), name).preload(data)


if __name__ == "__main__":
    main()
