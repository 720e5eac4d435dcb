"""A model's weights on the card, in the shape the kernels take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from lhama.backends.pytorch.cuda import formats
from lhama.backends.pytorch.cuda.matrix import PLAIN, Matrix, Stack
from lhama.backends.pytorch.cuda.reader import Reader
from lhama.backends.pytorch.families import traits_of
from lhama.backends.pytorch.families.family import Traits
from lhama.backends.pytorch.hyperparameters import Hyperparameters
from lhama.backends.pytorch.rope import Rope, ropes
from lhama.plugins.backend import UnsupportedModel
from lhama.plugins.gguf import GGUF, Tensor


@dataclass(frozen=True, slots=True)
class Block:
    """One layer. Vectors are float32."""

    attention_norm: torch.Tensor
    qkv: tuple[Matrix, ...]
    """Queries, keys and values below one another: one matrix, or two where types differ."""
    qkv_bias: torch.Tensor | None
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None
    output: Matrix
    output_bias: torch.Tensor | None
    attention_post_norm: torch.Tensor | None
    mlp_norm: torch.Tensor
    router: Matrix | None
    """Where the MLP is a mixture: float32 [experts, width]. The other three matrices are then all
    experts', below one another."""
    gate: Matrix
    up: Matrix
    down: Matrix
    mlp_post_norm: torch.Tensor | None
    local: bool
    """Sees only the window."""


@dataclass(frozen=True, slots=True)
class Network:
    """All of a model."""

    shape: Hyperparameters
    traits: Traits
    embedding: Matrix
    blocks: tuple[Block, ...]
    norm: torch.Tensor
    head: Matrix
    rope: Rope
    local_rope: Rope

    def sample(self) -> Network:
        """A network of one block of each kind: it runs the same kernels."""
        kinds: dict[object, Block] = {}
        for block in self.blocks:
            matrices = (*block.qkv, block.output, block.gate, block.up, block.down)
            kinds[(block.local, *(matrix.number for matrix in matrices))] = block
        return replace(self, blocks=tuple(kinds.values()))

    def matrices(self) -> list[Matrix]:
        """Of all blocks."""
        return [
            matrix
            for block in self.blocks
            for matrix in (*block.qkv, block.output, block.gate, block.up, block.down)
        ]


class Loader:
    """Takes tensors from a file in the order of the layers."""

    def __init__(
        self, header: GGUF, shape: Hyperparameters, reader: Reader, device: torch.device
    ) -> None:
        self._header = header
        self._shape = shape
        self._traits = traits_of(shape)
        self._reader = reader
        self._device = device

    def network(self, context: int) -> Network:
        shape, traits = self._shape, self._traits
        embedding = self._matrix(("token_embd.weight",), (shape.vocab,), shape.width)
        blocks = tuple(self._block(f"blk.{layer}", layer) for layer in range(shape.layers))
        head = embedding
        if "output.weight" in self._header.tensors:
            head = self._matrix(("output.weight",), (shape.vocab,), shape.width)
        rope, local_rope = ropes(shape, self._optional, context, self._device)
        norm = self._vector("output_norm.weight", shape.width)
        return Network(shape, traits, embedding, blocks, norm, head, rope, local_rope)

    def _block(self, prefix: str, layer: int) -> Block:
        shape, traits = self._shape, self._traits
        width, head_dim = shape.width, shape.head_dim
        queries, keys = shape.heads * head_dim, shape.kv_heads * head_dim
        post, heads = traits.post_norms, traits.head_norms
        gate, up = self._gated(prefix)

        def norm(name: str, size: int, present: bool = True) -> torch.Tensor | None:
            return self._vector(f"{prefix}.{name}.weight", size) if present else None

        return Block(
            attention_norm=self._vector(f"{prefix}.attn_norm.weight", width),
            qkv=self._qkv(prefix, (queries, keys, keys)),
            qkv_bias=self._biases(prefix, (queries, keys, keys)),
            query_norm=norm("attn_q_norm", head_dim, heads),
            key_norm=norm("attn_k_norm", head_dim, heads),
            output=self._matrix((f"{prefix}.attn_output.weight",), (width,), queries),
            output_bias=self._optional(f"{prefix}.attn_output.bias", width),
            attention_post_norm=norm("post_attention_norm", width, post),
            mlp_norm=self._vector(f"{prefix}.ffn_norm.weight", width),
            router=self._router(prefix) if shape.experts else None,
            gate=gate,
            up=up,
            down=self._down(prefix),
            mlp_post_norm=norm("post_ffw_norm", width, post),
            local=shape.window_pattern[layer],
        )

    def _qkv(self, prefix: str, counts: tuple[int, int, int]) -> tuple[Matrix, ...]:
        """Neighbours of one type become one matrix, so that one kernel has few cases."""
        width = self._shape.width
        if self._traits.fused:
            return (self._matrix((f"{prefix}.attn_qkv.weight",), (sum(counts),), width),)
        names = [f"{prefix}.attn_{part}.weight" for part in "qkv"]
        types = [self._tensor(name).type_name for name in names]
        if types[0] == types[1] == types[2]:
            return (self._matrix(names, counts, width),)
        if types[0] == types[1]:
            both = self._matrix(names[:2], counts[:2], width)
            return both, self._matrix(names[2:], counts[2:], width)
        if types[1] == types[2]:
            first = self._matrix(names[:1], counts[:1], width)
            return first, self._matrix(names[1:], counts[1:], width)
        raise UnsupportedModel(f"{prefix}: queries, keys and values of three types")

    def _gated(self, prefix: str) -> tuple[Matrix, Matrix]:
        """Gate and up, which may lie below one another in one tensor."""
        inner, width = self._shape.inner, self._shape.width
        if self._shape.experts:
            gate = self._experts(f"{prefix}.ffn_gate_exps.weight", inner, width)
            return gate, self._experts(f"{prefix}.ffn_up_exps.weight", inner, width)
        if self._traits.fused:
            both = self._tensor(f"{prefix}.ffn_up.weight", width, 2 * inner)
            return self._rows(both, 0, inner), self._rows(both, inner, inner)
        gate = self._matrix((f"{prefix}.ffn_gate.weight",), (inner,), width)
        return gate, self._matrix((f"{prefix}.ffn_up.weight",), (inner,), width)

    def _down(self, prefix: str) -> Matrix:
        shape = self._shape
        if shape.experts:
            return self._experts(f"{prefix}.ffn_down_exps.weight", shape.width, shape.inner)
        return self._matrix((f"{prefix}.ffn_down.weight",), (shape.width,), shape.inner)

    def _experts(self, name: str, rows: int, columns: int) -> Matrix:
        """All experts' matrices below one another."""
        count = self._shape.experts
        return self._rows(self._tensor(name, columns, rows, count), 0, count * rows)

    def _router(self, prefix: str) -> Matrix:
        """In float32, whatever the file has: what it decides is all or nothing."""
        shape = self._shape
        made = self._matrix((f"{prefix}.ffn_gate_inp.weight",), (shape.experts,), shape.width)
        if made.form:
            weights = formats.values(made.form, made.data, made.rows, made.columns)
        else:
            weights = made.data.float()
        return Matrix(weights, PLAIN["F32"][0], made.rows, made.outputs, made.columns)

    def _rows(self, tensor: Tensor, first: int, count: int) -> Matrix:
        """Some rows of a tensor, as a matrix of their own."""
        stack = Stack(tensor.type_name, (count,), tensor.shape[0], self._device)
        for raw in self._reader.rows(tensor, first, count):
            stack.add(raw)
        return stack.done()

    def _biases(self, prefix: str, counts: Sequence[int]) -> torch.Tensor | None:
        if self._traits.fused:
            return self._optional(f"{prefix}.attn_qkv.bias", sum(counts))
        parts = [
            self._optional(f"{prefix}.attn_{part}.bias", count)
            for part, count in zip("qkv", counts, strict=True)
        ]
        found = [part for part in parts if part is not None]
        if not found:
            return None
        if len(found) < len(parts):
            raise UnsupportedModel(f"{prefix}: some of queries, keys and values have a bias")
        if self._traits.neighbours:
            found[:2] = [part[self._order(len(part))] for part in found[:2]]
        return torch.cat(found)

    def _matrix(self, names: Sequence[str], counts: Sequence[int], columns: int) -> Matrix:
        tensors = [
            self._tensor(name, columns, rows) for name, rows in zip(names, counts, strict=True)
        ]
        stack = Stack(tensors[0].type_name, counts, columns, self._device)
        for tensor in tensors:
            turned = self._traits.neighbours and tensor.name.endswith(
                ("attn_q.weight", "attn_k.weight")
            )
            if turned:
                raw = torch.cat(list(self._reader.rows(tensor)))
                stack.add(raw[self._order(len(raw))])
            else:
                for raw in self._reader.rows(tensor):
                    stack.add(raw)
        return stack.done()

    def _order(self, rows: int) -> torch.Tensor:
        """Rows of queries or keys such that a head's halves turn together.

        The file turns dimension 2i with 2i+1. Queries and keys are reordered alike, so their
        products stay what they were.
        """
        order = torch.arange(rows, device=self._device)
        return order.view(-1, self._shape.head_dim // 2, 2).transpose(1, 2).flatten()

    def _vector(self, name: str, size: int) -> torch.Tensor:
        tensor = self._tensor(name, size)
        if tensor.type_name not in PLAIN:
            raise UnsupportedModel(f"the tensor {name!r} is of type {tensor.type_name}")
        raw = torch.cat(list(self._reader.rows(tensor))).flatten()
        return raw.view(PLAIN[tensor.type_name][1]).float()

    def _optional(self, name: str, size: int) -> torch.Tensor | None:
        return self._vector(name, size) if name in self._header.tensors else None

    def _tensor(self, name: str, *shape: int) -> Tensor:
        """Raises ``UnsupportedModel`` unless it is there and, if given, of that shape."""
        tensor = self._header.tensors.get(name)
        if tensor is None:
            raise UnsupportedModel(f"the tensor {name!r} is missing")
        if shape and tensor.shape != shape:
            raise UnsupportedModel(
                f"the tensor {name!r} has the shape {tensor.shape[::-1]}, not {shape[::-1]}"
            )
        return tensor
