"""Which files an argument of FROM, ADAPTER or DRAFT names, by Ollama's rules."""

from __future__ import annotations

import os
from pathlib import Path

from lhama.daemon.errors import BadRequest

_WEIGHTS = ("model*.safetensors", "consolidated*.safetensors", "adapter*.safetensors", "*.gguf")
"""The first pattern that something matches decides what kind of folder it is."""

_PICKLES = ("*.bin", "*.pth", "*.pt", "*.ckpt")
_BESIDE = ("*.json", "*/*.json", "chat_template.jinja", "vocab.txt", "merges.txt")
"""What a conversion reads besides weights; pooling's configuration lies one folder below."""

_PATHS = ("/", "./", "../", "~")
_ENDINGS = (".gguf", ".safetensors", ".bin")


def locate(argument: str, relative_to: Path) -> list[Path] | None:
    """The files, sorted; ``None`` for what can only be a model's name. Raises ``BadRequest``."""
    path = Path(os.path.abspath(relative_to / Path(argument).expanduser()))
    if path.is_file():
        return [path]
    if path.is_dir():
        return _of_folder(path)
    if argument.startswith(_PATHS) or argument.lower().endswith(_ENDINGS):
        raise BadRequest(f"no such file: {path}")
    return None


def names(files: list[Path]) -> dict[Path, str]:
    """What the server is to call each file: its path below the folder that holds them all."""
    if len(files) < 2:
        return {file: file.name for file in files}
    root = os.path.commonpath([file.parent for file in files])
    return {file: file.relative_to(root).as_posix() for file in files}


def _of_folder(folder: Path) -> list[Path]:
    found: list[Path] = []
    for pattern in _WEIGHTS:
        if found := list(folder.glob(pattern)):
            found += folder.glob(f"*/{pattern}") if pattern.startswith("model") else ()
            break
    else:
        found = [path for path in folder.glob("*.bin") if _is_gguf(path)]
    if not found:
        raise BadRequest(_nothing_in(folder))
    for pattern in _BESIDE:
        found += folder.glob(pattern)
    found += list(folder.glob("tokenizer.model")) or folder.glob("*/tokenizer.model")
    return sorted({_inside(path, folder) for path in found if path.is_file()})


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _inside(path: Path, folder: Path) -> Path:
    """A file that stays in the folder. Links out of it would send what nobody meant to send."""
    real, root = path.resolve(), folder.resolve()
    if not real.is_relative_to(root):
        below = os.path.relpath(real, root)
        hint = "\n\nUse --local-dir <dir> when downloading model to disable caching"
        raise BadRequest(f"insecure path: {below}{hint if '.cache' in below else ''}")
    return folder / real.relative_to(root)


def _nothing_in(folder: Path) -> str:
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        return (
            f"{pickles[0]} in {folder} holds pickled weights, which can run any program when they "
            "are read: save the model as safetensors"
        )
    return f"no Modelfile or safetensors files found in {folder}"
