"""What this machine can compute on: readings of memory, without loading an engine."""

from __future__ import annotations

import contextlib
import os
import platform
from functools import lru_cache
from pathlib import Path

import psutil

from lhama.plugins.backend import Device


def host() -> Device:
    """The processor and main memory."""
    memory = psutil.virtual_memory()
    return Device("cpu", "cpu", _processor(), memory.total, memory.available)


def nvidia() -> list[Device]:
    """The NVIDIA cards the driver reports; empty without a driver. Touches no CUDA context."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    found: list[Device] = []
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            with contextlib.suppress(pynvml.NVMLError):
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
                name = pynvml.nvmlDeviceGetName(handle)
                text = name.decode() if isinstance(name, bytes) else str(name)
                total, free = int(memory.total), int(memory.free)
                found.append(Device(f"cuda:{index}", "cuda", text, total, free))
    except pynvml.NVMLError:
        return found
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
    return found


def compute_capability(device: Device) -> tuple[int, int]:
    """Of an NVIDIA card: what its processors can do; (0, 0) if it does not say."""
    with contextlib.suppress(ImportError):
        import pynvml

        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlInit()
            try:
                index = int(device.id.rpartition(":")[2])
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
                return int(major), int(minor)
            finally:
                pynvml.nvmlShutdown()
    return 0, 0


def metal() -> list[Device]:
    """The GPU of an Apple-silicon Mac, which shares main memory; empty elsewhere."""
    if platform.system() != "Darwin" or platform.machine() != "arm64":
        return []
    memory = psutil.virtual_memory()
    return [Device("metal:0", "metal", _processor(), memory.total, memory.available)]


def physical_cores() -> int:
    """Cores this process may use, hyperthreads counted once: more threads only get in the way."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(psutil.cpu_count(logical=False) or usable or 1, usable or 1))


@lru_cache(maxsize=1)
def _processor() -> str:
    """The processor's name as its maker writes it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
