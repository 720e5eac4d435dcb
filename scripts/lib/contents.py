"""Checks what is in a wheel and a source distribution: contents.py FOLDER."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOMS = ("daemon", "backends", "plugins")


def main(folder: Path) -> None:
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    listed = subprocess.run(
        ["git", "ls-files", *ROOMS], capture_output=True, text=True, check=True
    ).stdout.split()
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name for name in archive.namelist() if ".dist-info/" not in name}
    with tarfile.open(source) as archive:
        in_source = {name.partition("/")[2] for name in archive.getnames()}
    own = [
        name.removesuffix("pyproject.toml") for name in listed if name.endswith("/pyproject.toml")
    ]
    listed = [
        name for name in listed if not name.startswith(tuple(own))
    ]  # not of this distribution
    expected = {f"lhama/{name}" for name in listed}
    problems = [
        *(f"missing from the wheel: {name}" for name in sorted(expected - in_wheel)),
        *(f"stray in the wheel: {name}" for name in sorted(in_wheel - expected)),
        *(f"missing from the source: {name}" for name in sorted(set(listed) - in_source)),
    ]
    if problems:
        sys.exit("\n".join(problems))
    print(f"{wheel.name} and {source.name}: all {len(expected)} files of the rooms")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
