"""What lhama's own sources must not hold, and versions that must not be older."""

from __future__ import annotations

import ast
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    path
    for room in ("daemon", "backends", "plugins")
    for path in sorted((ROOT / room).rglob("*.py"))
]


def _modules(path: Path) -> set[str]:
    """Top-level names of what a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name.partition(".")[0] for name in found}


def _calls(path: Path) -> set[str]:
    """Names of what a file calls, with one attribute: ``torch.load``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            found.add(ast.unparse(node.func))
    return found


@pytest.mark.cve("2025-32434")
def test_nothing_is_unpickled() -> None:
    for path in SOURCES:
        assert not _modules(path) & {"pickle", "dill", "cloudpickle", "shelve", "marshal"}, path
        assert not _calls(path) & {"torch.load", "numpy.load", "np.load", "eval", "exec"}, path


@pytest.mark.cve("2024-45436")
def test_no_archive_is_unpacked() -> None:
    for path in SOURCES:
        assert not _modules(path) & {"zipfile", "tarfile", "shutil.unpack_archive"}, path


@pytest.mark.cve("2024-23334")
def test_no_folder_is_served() -> None:
    for path in SOURCES:
        assert not {name.rpartition(".")[2] for name in _calls(path)} & {"add_static", "static"}, (
            path
        )


@pytest.mark.cve("2026-42248", "2026-42249")
def test_there_is_no_updater() -> None:
    """Nothing that fetches is beside anything that installs: no pip, no download of programs."""
    for path in SOURCES:
        text = path.read_text()
        assert "pip install" not in text or "subprocess" not in _modules(path), path
        if _modules(path) & {"aiohttp", "urllib"} and "registry" in path.parts:
            assert "subprocess" not in _modules(path), path


@pytest.mark.cve("ggml RPC")
def test_ggmls_rpc_is_not_used() -> None:
    for path in SOURCES:
        assert "rpc" not in path.read_text().lower().replace("grpc", ""), path


@pytest.mark.cve("aiohttp", "llama.cpp loader", "2024-56326")
@pytest.mark.parametrize(
    ("package", "least"),
    [("aiohttp", (3, 14, 5)), ("llama_cpp_python", (0, 3, 36)), ("minijinja", (3, 0))],
)
def test_what_was_mended_is_installed(package: str, least: tuple[int, ...]) -> None:
    installed = tuple(int(part) for part in version(package).split(".")[:3] if part.isdigit())
    assert installed >= least
