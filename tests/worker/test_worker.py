"""Tools in worker processes: what they see, and how their ends are told. The tools are a plugin's,
in a distribution of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
import signal
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest
from lhama_testing_daemon import children as processes
from lhama_testing_tools import install

from lhama.daemon.config import Settings
from lhama.daemon.worker import Conversion, Quantization, ToolFailed, Worker
from lhama.plugins import manager

SECRET = "canary-5f1d0c"


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """With a plugin that the child finds by PYTHONPATH, one of the few things it inherits."""
    folder = install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("OLLAMA_API_KEY", SECRET)
    return patient(300)


def patient(seconds: float) -> Worker:
    settings = dataclasses.replace(Settings(), load_timeout=int(seconds * 1e9))
    return Worker(settings, manager.discover())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.touch()
    return path


async def quantize(worker: Worker, target: Path, kind: str) -> list[float]:
    job = Quantization("odd.gguf", str(target), kind)
    return [share async for share in worker.run("odd", job)]


def children() -> list[psutil.Process]:
    return processes(os.getpid(), "lhama.daemon.worker")


def test_the_first_tool_that_can_is_taken(worker: Worker) -> None:
    assert worker.quantizer(Path("odd.gguf"), "Q8_0") == ("odd", "")
    tool, reason = worker.quantizer(Path("even.gguf"), "Q8_0")
    assert tool == ""
    assert reason.endswith("it is not odd")
    assert worker.converter(Path("odd")) == ("odd", "")


@pytest.mark.cve("2026-7482")
def test_nothing_of_the_daemons_environment_is_seen(worker: Worker, target: Path) -> None:
    asyncio.run(quantize(worker, target, "ENVIRONMENT"))
    seen = target.read_text()
    assert "PATH=" in seen
    assert SECRET not in seen
    names = {line.partition("=")[0] for line in seen.splitlines() if "=" in line}
    assert not [name for name in names if name.startswith(("OLLAMA", "AWS", "LHAMA"))]


async def test_progress_is_told_whatever_a_tool_prints(worker: Worker, target: Path) -> None:
    assert (await quantize(worker, target, "CHATTER"))[0] == 0.25


@pytest.mark.parametrize(
    ("kind", "reason", "ending"),
    [
        ("SEGFAULT", "its process ended", "signal: segmentation fault"),
        ("LEAVE", "its process ended", "exit status 7"),
        ("QUIT", "its process ended", "exit status 0"),
        ("FAIL", "this is not a model", "exit status 1"),
        ("CRASH", "KeyError: 'missing'", "exit status 1"),
        ("NONSENSE", "the worker sent nonsense", "exit status 1"),
    ],
)
async def test_ends_are_told(
    worker: Worker, target: Path, kind: str, reason: str, ending: str
) -> None:
    with pytest.raises(ToolFailed) as failed:
        await quantize(worker, target, kind)
    assert failed.value.message.startswith(reason)
    assert failed.value.ending == ending
    assert failed.value.errno == 0
    assert children() == []


async def test_a_full_disk_is_told_apart(worker: Worker, target: Path) -> None:
    with pytest.raises(ToolFailed) as failed:
        await quantize(worker, target, "FULL")
    assert failed.value.errno == errno.ENOSPC


async def test_a_killed_worker(worker: Worker, target: Path) -> None:
    shares = worker.run("odd", job(target, "HANG"))
    await anext(shares)
    [child] = children()
    child.send_signal(signal.SIGKILL)
    with pytest.raises(ToolFailed) as failed:
        await anext(shares)
    assert failed.value.ending == "signal: killed"


def job(target: Path, kind: str) -> Quantization:
    return Quantization("odd.gguf", str(target), kind)


async def test_who_makes_no_progress_is_killed(worker: Worker, target: Path) -> None:
    with pytest.raises(ToolFailed, match="made no progress"):
        await quantize(patient(3), target, "HANG")
    assert children() == []


async def test_writing_is_progress(worker: Worker, target: Path) -> None:
    assert await quantize(patient(3), target, "WRITE_ON") == [0.25, 1.0]


async def test_an_abandoned_job_ends_its_process(worker: Worker, target: Path) -> None:
    async with aclosing(worker.run("odd", job(target, "HANG"))) as shares:
        await anext(shares)
        assert len(children()) == 1
    assert children() == []


async def test_a_cancelled_job_ends_its_process(worker: Worker, target: Path) -> None:
    shares = worker.run("odd", job(target, "HANG"))
    await anext(shares)
    waiting = asyncio.ensure_future(anext(shares))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert children() == []


async def test_one_job_at_a_time(worker: Worker, target: Path) -> None:
    async with aclosing(worker.run("odd", job(target, "HANG"))) as shares:
        await anext(shares)
        second = asyncio.create_task(quantize(worker, target, "CHATTER"))
        await asyncio.sleep(0.2)
        assert len(children()) == 1
    assert (await second)[0] == 0.25


async def test_converters_fail_in_their_own_words(worker: Worker, target: Path) -> None:
    with pytest.raises(ToolFailed) as failed:
        async for _ in worker.run("odd", Conversion("odd", str(target))):
            pass
    assert failed.value.message == "not this one"
