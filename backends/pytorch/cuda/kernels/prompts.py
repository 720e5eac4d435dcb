"""Attention on the tensor cores: the queries of a prompt's tokens, or the heads of a single token.

The tokens' own keys and values are in the cache already, queries are turned and scaled
(``attention.spread``).
"""

from __future__ import annotations

import triton
import triton.language as tl

PAGE = tl.constexpr(64)
SPLITS = tl.constexpr(16)
"""Of a row's positions, at most."""
LEAST = tl.constexpr(4)
"""Pages of a split, at least: with several rows there are programs enough."""


@triton.jit
def wait(PDL: tl.constexpr):
    """``asm.wait`` and ``asm.let_next_start``, in plain Triton."""
    if PDL:
        tl.inline_asm_elementwise(
            "griddepcontrol.launch_dependents; // $0", "=r", [], tl.int32, False, 1
        )
        tl.inline_asm_elementwise("griddepcontrol.wait; // $0", "=r", [], tl.int32, False, 1)


@triton.jit
def counted(page, FAR: tl.constexpr):
    """``attention.counted``, in plain Triton."""
    if FAR:
        return page.to(tl.int64)
    else:
        return page


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
    FAR: tl.constexpr, QUERIES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Grid: blocks of up to ``QUERIES`` neighbouring tokens, heads.

    ``q`` and ``y`` are [tokens, HEADS · D] float16. A block has a slot, its first token's place
    in ``q``, that token's position, and a number of tokens.
    """
    wait(PDL)
    block, head = tl.program_id(0), tl.program_id(1)
    kv = head // (HEADS // KV_HEADS)
    slot = tl.load(block_slots + block)
    position = tl.load(block_positions + block)
    count = tl.load(block_counts + block)
    if count == 0:
        return
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
        page = counted(tl.load(tables + slot * PAGES + tile), FAR)
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


@triton.jit(do_not_specialize_on_alignment=["slots", "positions"])
def attend_rows(
    q, keys, values, key_scales, value_scales, tables, slots, positions, parts, states, tickets, y,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr,
    GROUP: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, PAGES: tl.constexpr,
    KV8: tl.constexpr, FAR: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Grid: rows with one token each, key-value heads, splits. See ``attention.attend``.

    ``GROUP``, 16 or more, is a power of two that covers the heads of a group.
    """
    wait(PDL)
    row, kv, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    SHARED: tl.constexpr = HEADS // KV_HEADS
    slot = tl.load(slots + row)
    position = tl.load(positions + row)
    start = position * 0
    if WINDOW > 0:
        start = tl.maximum(position - (WINDOW - 1), 0)
    first = start // PAGE
    pages = position // PAGE - first + 1
    each = tl.maximum((pages + SPLITS - 1) // SPLITS, LEAST)
    used = (pages + each - 1) // each
    if split < used:
        head = tl.arange(0, GROUP)
        dim = tl.arange(0, WIDTH)
        heads = row * HEADS + kv * SHARED
        at = (heads + head)[:, None] * D + dim[None, :]
        inside = (head < SHARED)[:, None] & (dim < D)[None, :]
        queries = tl.load(q + at, mask=inside, other=0.0)
        highest = tl.full([GROUP], float("-inf"), tl.float32)
        total = tl.full([GROUP], 0.0, tl.float32)
        mixed = tl.full([GROUP, WIDTH], 0.0, tl.float32)
        begin = first + split * each
        end = tl.minimum(begin + each, first + pages)
        for tile in tl.range(begin, end):
            page = counted(tl.load(tables + slot * PAGES + tile), FAR)
            place = tile * PAGE + tl.arange(0, PAGE)
            line = ((page * KV_HEADS + kv) * PAGE + tl.arange(0, PAGE))[:, None]
            seen = (place >= start) & (place <= position)
            known = seen[:, None] & (dim < D)[None, :]
            k = load_page(keys, key_scales, line, dim[None, :], known, D, KV8)
            v = load_page(values, value_scales, line, dim[None, :], known, D, KV8)
            scores = tl.dot(queries, tl.trans(k))
            if SOFTCAP > 0.0:
                scores = SOFTCAP * (1.0 - 2.0 / (1.0 + tl.exp(scores * (2.0 / SOFTCAP))))
            scores = tl.where(seen[None, :], scores, float("-inf"))
            above = tl.maximum(highest, tl.max(scores, axis=1))
            share = tl.exp(scores - above[:, None])
            fade = tl.exp(highest - above)
            total = total * fade + tl.sum(share, axis=1)
            mixed = tl.dot(share.to(tl.float16), v, mixed * fade[:, None])
            highest = above
        if used == 1:
            mixed = mixed / total[:, None]
            tl.store(y + at, mixed.to(y.dtype.element_ty), mask=inside)
        else:
            line = (heads + head) * SPLITS + split
            tl.store(states + line * 2, highest, mask=head < SHARED)
            tl.store(states + line * 2 + 1, total, mask=head < SHARED)
            tl.store(parts + line[:, None] * D + dim[None, :], mixed, mask=inside)
            tl.debug_barrier()
            ticket = tl.atomic_add(tickets + row * KV_HEADS + kv, 1, sem="acq_rel", scope="gpu")
            if ticket == used - 1:  # the last to finish puts the splits together, in their order
                tl.store(tickets + row * KV_HEADS + kv, 0)
                every = tl.arange(0, SPLITS)
                lines = (heads + head)[:, None] * SPLITS + every[None, :]
                meant = (head < SHARED)[:, None] & (every < used)[None, :]
                tops = tl.load(states + lines * 2, mask=meant, other=float("-inf"))
                sums = tl.load(states + lines * 2 + 1, mask=meant, other=0.0)
                top = tl.max(tops, axis=1)
                top = tl.where(top == float("-inf"), 0.0, top)
                whole = tl.sum(tl.exp(tops - top[:, None]) * sums, axis=1)
                whole = tl.where(whole > 0.0, whole, 1.0)
                mixed = tl.full([GROUP, WIDTH], 0.0, tl.float32)
                for part in tl.range(0, used):
                    line = (heads + head) * SPLITS + part
                    weight = tl.load(states + line * 2, mask=head < SHARED, other=float("-inf"))
                    weight = tl.exp(weight - top) / whole
                    part_at = line[:, None] * D + dim[None, :]
                    mixed += weight[:, None] * tl.load(parts + part_at, mask=inside, other=0.0)
                tl.store(y + at, mixed.to(y.dtype.element_ty), mask=inside)
