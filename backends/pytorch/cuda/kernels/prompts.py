"""Attention of prompts: many queries of a slot at once over its pages, on the tensor cores."""

from __future__ import annotations

import triton
import triton.language as tl

PAGE = tl.constexpr(64)


@triton.jit
def load_page(codes, scales, line, dim, inside, D: tl.constexpr, KV8: tl.constexpr):
    """float16 [positions, dims]."""
    raw = tl.load(codes + line * D + dim, mask=inside, other=0)
    if KV8:
        scale = tl.load(scales + line * (D // 32) + dim // 32, mask=inside, other=0.0)
        return (raw.to(tl.float32) * scale.to(tl.float32)).to(tl.float16)
    else:
        return raw


@triton.jit(
    do_not_specialize_on_alignment=[
        "block_slots",
        "block_tokens",
        "block_positions",
        "block_counts",
    ]
)
def attend_chunks(
    q, keys, values, key_scales, value_scales, tables, block_slots, block_tokens,
    block_positions, block_counts, y,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr,
    WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, PAGES: tl.constexpr, KV8: tl.constexpr,
    QUERIES: tl.constexpr,
):  # fmt: skip
    """Grid: blocks of up to ``QUERIES`` neighbouring tokens, heads.

    ``q`` and ``y`` are [tokens, HEADS · D] float16; ``q`` is turned and scaled already and the
    tokens' own keys and values are in the cache. A block has a slot, its first token's place in
    ``q``, that token's position, and a number of tokens.
    """
    block, head = tl.program_id(0), tl.program_id(1)
    kv = head // (HEADS // KV_HEADS)
    slot = tl.load(block_slots + block)
    position = tl.load(block_positions + block)
    count = tl.load(block_counts + block)
    query = tl.arange(0, QUERIES)
    dim = tl.arange(0, WIDTH)
    of_token = (tl.load(block_tokens + block) + query) * (HEADS * D) + head * D
    at = of_token[:, None] + dim[None, :]
    inside = (query < count)[:, None] & (dim < D)[None, :]
    queries = tl.load(q + at, mask=inside, other=0.0)
    highest = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.full([QUERIES], 0.0, tl.float32)
    mixed = tl.full([QUERIES, WIDTH], 0.0, tl.float32)
    first = position * 0
    if WINDOW > 0:
        first = tl.maximum(position - (WINDOW - 1), 0) // PAGE
    own = position + query
    last = position + count - 1
    for tile in range(first, last // PAGE + 1):
        page = tl.load(tables + slot * PAGES + tile)
        place = tile * PAGE + tl.arange(0, PAGE)
        line = ((page * KV_HEADS + kv) * PAGE + tl.arange(0, PAGE))[:, None]
        known = (place <= last)[:, None] & (dim < D)[None, :]
        k = load_page(keys, key_scales, line, dim[None, :], known, D, KV8)
        scores = tl.dot(queries, tl.trans(k))
        if SOFTCAP > 0.0:
            scores = SOFTCAP * (1.0 - 2.0 / (1.0 + tl.exp(scores * (2.0 / SOFTCAP))))
        seen = place[None, :] <= own[:, None]
        if WINDOW > 0:
            seen = seen & (place[None, :] > own[:, None] - WINDOW)
        scores = tl.where(seen, scores, float("-inf"))
        above = tl.maximum(highest, tl.max(scores, axis=1))
        shift = tl.where(above == float("-inf"), 0.0, above)
        share = tl.exp(scores - shift[:, None])
        fade = tl.exp(highest - shift)
        total = total * fade + tl.sum(share, axis=1)
        v = load_page(values, value_scales, line, dim[None, :], known, D, KV8)
        mixed = tl.dot(share.to(tl.float16), v, mixed * fade[:, None])
        highest = above
    mixed = mixed / total[:, None]
    tl.store(y + at, mixed.to(y.dtype.element_ty), mask=inside)
