"""Placement is a pure function: its rules as a table."""

from __future__ import annotations

import pytest

from lhama.daemon.scheduler.placement import (
    CPU_SLOTS,
    GIB,
    Decision,
    LoadRequest,
    Resident,
    choose_slots,
    decide,
    default_context,
)
from lhama.plugins.backend import Device, LoadOptions, MemoryEstimate

IDLE = Resident("/a", idle=True, keep_alive=300)
SHORT = Resident("/b", idle=True, keep_alive=60)
BUSY = Resident("/c", idle=False, keep_alive=1)


@pytest.mark.parametrize(
    ("residents", "needed", "free", "most", "expected"),
    [
        ([], 100 * GIB, GIB, 3, Decision("load")),
        ([IDLE], 8 * GIB, 10 * GIB, 3, Decision("load")),
        ([IDLE], 9 * GIB, 10 * GIB, 3, Decision("evict", "/a")),
        ([IDLE, SHORT], GIB, 10 * GIB, 2, Decision("evict", "/b")),
        ([IDLE, SHORT, BUSY], GIB, 10 * GIB, 3, Decision("evict", "/b")),
        ([IDLE, BUSY], 9 * GIB, 10 * GIB, 3, Decision("evict", "/a")),
        ([BUSY], 9 * GIB, 10 * GIB, 3, Decision("wait", "/c")),
        ([BUSY, Resident("/d", False, 9)], 9 * GIB, GIB, 3, Decision("wait", "/c")),
    ],
)
def test_who_goes_for_whom(
    residents: list[Resident], needed: int, free: int, most: int, expected: Decision
) -> None:
    assert decide(residents, needed, free, most) == expected


@pytest.mark.parametrize(
    ("gib", "expected"),
    [([], 4096), ([22], 4096), ([24], 32768), ([24, 24], 262144), ([80], 262144)],
)
def test_default_context_by_accelerator_memory(gib: list[int], expected: int) -> None:
    devices = [Device(f"cuda:{n}", "cuda", "", g * GIB, g * GIB) for n, g in enumerate(gib)]
    devices.append(Device("cpu", "cpu", "", 256 * GIB, 256 * GIB))
    assert default_context(devices, 0) == expected


def test_overhead_counts_against_each_accelerator() -> None:
    device = Device("cuda:0", "cuda", "", 24 * GIB, 24 * GIB)
    assert default_context([device], 2 * GIB) == 4096


@pytest.mark.parametrize(
    ("free", "parallel", "slots"),
    [(0, 0, CPU_SLOTS), (0, 7, 7), (100, 0, 32), (20, 0, 4), (3, 0, 1), (100, 2, 2)],
)
def test_slots_fill_the_accelerator_but_no_more(free: int, parallel: int, slots: int) -> None:
    """A model of 2 GiB, each slot 2 GiB more; 80 % of what is free may be taken."""
    devices = [Device("cpu", "cpu", "", GIB, GIB)]
    if free:
        devices.append(Device("cuda:0", "cuda", "", free * GIB, free * GIB))
    chosen = choose_slots(
        parallel,
        devices,
        lambda n: LoadOptions(slots=n),
        lambda o: MemoryEstimate(2 * GIB, o.slots * 2 * GIB, 0),
    )
    assert chosen.slots == slots


@pytest.mark.parametrize(
    ("asked", "loaded", "same"),
    [
        (LoadRequest(), LoadRequest(), True),
        (LoadRequest(num_ctx=64), LoadRequest(num_ctx=64), True),
        (LoadRequest(num_ctx=64), LoadRequest(num_ctx=128), False),
        (LoadRequest(num_ctx=9000), LoadRequest(num_ctx=8192), True),
        (LoadRequest(), LoadRequest(num_ctx=64), False),
        (LoadRequest(), LoadRequest(num_ctx=4096), True),
        (LoadRequest(num_ctx=4096), LoadRequest(), True),
        (LoadRequest(num_batch=512), LoadRequest(), True),
        (LoadRequest(num_gpu=-1), LoadRequest(num_gpu=0), True),
        (LoadRequest(num_gpu=1), LoadRequest(num_gpu=0), False),
        (LoadRequest(num_batch=64), LoadRequest(), False),
        (LoadRequest(num_thread=1), LoadRequest(), False),
        (LoadRequest(embedding=True), LoadRequest(), False),
    ],
)
def test_what_reloads_a_model(asked: LoadRequest, loaded: LoadRequest, same: bool) -> None:
    assert asked.matches(loaded, context=4096, batch=512, trained=8192) is same
