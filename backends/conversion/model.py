"""From a folder with a checkpoint to a GGUF file, one tensor in memory at a time."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from gguf import GGUFWriter, get_tensor_name_map
from gguf.constants import MODEL_ARCH_NAMES, GGMLQuantizationType, LlamaFileType

from lhama.backends.conversion import families, jsonfile, safetensors
from lhama.backends.conversion.config import Config
from lhama.backends.conversion.families.family import Family, Values
from lhama.backends.conversion.safetensors import StoredTensor
from lhama.plugins.backend import Progress, UnsupportedModel

_EMBEDDING: Final = "token_embd.weight"
_ALWAYS_F32: Final = ("token_types.weight", "position_embd.weight")
"""Matrices the engines add to activations: they stay exact."""

_NUMPY: Final[dict[GGMLQuantizationType, np.dtype[Any]]] = {
    GGMLQuantizationType.F32: np.dtype(np.float32),
    GGMLQuantizationType.F16: np.dtype(np.float16),
    GGMLQuantizationType.BF16: np.dtype(np.uint16),
}


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor to be written."""

    name: str
    source: StoredTensor
    kind: GGMLQuantizationType


def convert(folder: Path, target: Path, progress: Progress) -> None:
    """Write the checkpoint in ``folder`` as a GGUF file: matrices stay BF16 or become F16.

    Raises ``UnsupportedModel`` for what cannot be converted, ``OSError`` where reading or writing
    fails.
    """
    family = families.find(Config(jsonfile.read(folder / "config.json")))
    stored = safetensors.read_folder(folder)
    if not stored:
        raise UnsupportedModel("unknown tensor format: there are no safetensors files")
    outputs = list(_plan(family, stored))
    vocabulary = family.vocabulary(folder)
    vocabulary.fit(_rows(outputs))
    writer = GGUFWriter(target, MODEL_ARCH_NAMES[family.arch])
    try:
        family.describe(writer, folder)
        writer.add_file_type(LlamaFileType.MOSTLY_F16)
        writer.add_quantization_version(2)
        vocabulary.write(writer, folder)
        _write(writer, family, outputs, progress)
    finally:
        writer.close()


def _plan(family: Family, stored: dict[str, StoredTensor]) -> Iterator[Output]:
    """What becomes of each tensor. Raises ``UnsupportedModel`` for one nobody knows."""
    names = get_tensor_name_map(family.arch, family.blocks)
    done: dict[str, str] = {}
    for tensor in stored.values():
        own = family.own_name(tensor.name)
        if own is None:
            continue
        name = names.get_name(own, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise UnsupportedModel(f"the tensor {tensor.name} has no place in this architecture")
        if done.setdefault(name, tensor.name) != tensor.name:
            raise UnsupportedModel(f"duplicate tensor name '{name}' was found for this model")
        yield Output(name, tensor, _kind(name, tensor))
    _check_blocks(done, family.blocks)


def _kind(name: str, tensor: StoredTensor) -> GGMLQuantizationType:
    if len(tensor.shape) < 2 or name in _ALWAYS_F32:
        return GGMLQuantizationType.F32
    return GGMLQuantizationType.BF16 if tensor.dtype == "BF16" else GGMLQuantizationType.F16


def _check_blocks(names: dict[str, str], blocks: int) -> None:
    """Every block has what the first one has: a shard may have been left out."""
    parts = [name.removeprefix("blk.0.") for name in names if name.startswith("blk.0.")]
    missing = [
        f"blk.{block}.{part}"
        for block in range(blocks)
        for part in parts
        if f"blk.{block}.{part}" not in names
    ]
    if missing or not parts:
        raise UnsupportedModel(f"the checkpoint lacks {missing[0] if missing else 'its layers'}")


def _rows(outputs: list[Output]) -> int:
    for output in outputs:
        if output.name == _EMBEDDING:
            return output.source.shape[0]
    raise UnsupportedModel("the checkpoint has no token embedding")


def _write(writer: GGUFWriter, family: Family, outputs: list[Output], progress: Progress) -> None:
    extra = family.extra()
    for name, values in extra.items():
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
    for output in outputs:
        kind, shape = output.kind, output.source.shape or (1,)
        nbytes = math.prod(shape) * _NUMPY[kind].itemsize
        writer.add_tensor_info(output.name, shape, _NUMPY[kind], nbytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for values in extra.values():
        _append(writer, values)
    total, done = sum(output.source.nbytes for output in outputs), 0
    for output in outputs:
        progress(done / total, output.name)
        _append(writer, _values(family, output))
        done += output.source.nbytes
    progress(1.0, "")


def _append(writer: GGUFWriter, values: Values) -> None:
    try:
        writer.write_tensor_data(values)
    except OSError as error:
        # numpy's own words, for a full disk: they come without a number.
        number = errno.ENOSPC if error.errno is None else error.errno
        raise OSError(number, os.strerror(number)) from error


def _values(family: Family, output: Output) -> Values:
    """One tensor as it is written. Raises ``UnsupportedModel`` where F16 cannot hold it."""
    source = output.source
    as_is = output.kind is GGMLQuantizationType.BF16
    values = family.change(output.name, source.values() if as_is else safetensors.float32(source))
    wanted = _NUMPY[output.kind]
    if values.dtype != wanted:
        with np.errstate(over="ignore"):
            converted = values.astype(wanted)
        if wanted == np.float16 and not np.isfinite(converted).all():
            raise UnsupportedModel(f"the tensor {source.name} has values that F16 cannot hold")
        values = converted
    return np.ascontiguousarray(values).reshape(source.shape or (1,))
