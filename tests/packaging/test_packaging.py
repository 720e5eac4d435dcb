"""pyproject.toml and the folders agree: what setuptools would silently leave out."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("daemon", "backends", "plugins")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def files(pattern: str) -> Iterator[Path]:
    """The rooms' files, without those of distributions of their own that lie in one."""
    for room in ROOMS:
        for file in (ROOT / room).rglob(pattern):
            own = (folder / "pyproject.toml" for folder in file.parents if ROOT in folder.parents)
            if not any(path.exists() for path in own):
                yield file


def test_packages_are_all_folders_with_an_init(project: dict[str, Any]) -> None:
    folders = {
        "lhama." + ".".join(file.parent.relative_to(ROOT).parts) for file in files("__init__.py")
    }
    assert set(project["tool"]["setuptools"]["packages"]) == folders


def test_every_other_file_is_package_data(project: dict[str, Any]) -> None:
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    left_out = [
        str(file.relative_to(ROOT))
        for file in files("*")
        if file.is_file()
        and file.suffix not in (".py", ".pyc")
        and not (
            (file.parent / "__init__.py").exists() and any(fnmatch(file.name, p) for p in patterns)
        )
    ]
    assert left_out == []


def test_every_module_is_in_a_package() -> None:
    homeless = [
        str(file.relative_to(ROOT))
        for file in files("*.py")
        if not (file.parent / "__init__.py").exists()
    ]
    assert homeless == []


def test_rooms_are_typed() -> None:
    assert all((ROOT / room / "py.typed").exists() for room in ROOMS)


def test_the_changelog_knows_this_version(project: dict[str, Any]) -> None:
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == "Unreleased"
    released = importlib.metadata.version("lhama")
    assert project["project"]["version"] == released
    assert len(versions) == 1 or versions[1] == released


def test_the_command_is_installed() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="lhama")
    assert script.value == "lhama.daemon.cli:main"


def test_runners_cannot_import_a_room_twice() -> None:
    """A checkout on the path would make ``daemon`` a second module object: ``-P`` keeps it off."""
    for room in ROOMS:
        done = subprocess.run(
            [sys.executable, "-P", "-c", f"import {room}"], cwd=ROOT, capture_output=True, text=True
        )
        assert "ModuleNotFoundError" in done.stderr
