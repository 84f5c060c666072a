"""Attention in blocks, on every platform. It stores no S x S array, and computes only blocks that can attend.

A block of queries goes through blocks of keys with a running softmax (Milakov and Gimelshein, 2018; Rabe and Staats,
2021). The backward pass computes the scores again, with the saved maximum and sum of the softmax (Dao et al., 2022).
Blocks of keys without a segment in common with the queries are left out, so documents in one row do not pay for each
other. With a window, the keys of a block of queries are one block with a margin of half a window on each side, and time
and memory grow with S times the window.
"""
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from spanbert_jax.model.attention import AttentionBackend, AttentionInputs, AttentionSpec
from spanbert_jax.model.attention.plain import CLAMP, MASKED_SCORE
from spanbert_jax.model.dropout import ELEMENTS_PER_WORD, hash_words, is_kept, kept_scale, rate_threshold

# Positions of a block. Products of smaller blocks are not spread over the cores of a CPU.
QUERIES, KEYS = 512, 256
BAND_BLOCK, BAND_KEYS = 128, 640  # with a window: queries of a block, and the most keys that are taken at once


class _Cut(NamedTuple):
    """How a row is cut into blocks."""
    length: int  # positions of the row, S
    block: int  # queries of a block, T
    keys: int  # keys of a block, K
    margin: int  # positions that are added to the keys at the start of the row, and at least as many at its end
    reach: int  # positions to each side that a query attends to
    banded: bool  # whether one block of keys has all keys of a block of queries

    @property
    def blocks(self) -> int:
        """Blocks of queries."""
        return -(-self.length // self.block)

    @property
    def width(self) -> int:
        """Positions of all blocks of queries, at least S."""
        return self.blocks * self.block

    def pad_keys(self, array: jax.Array, axis: int) -> jax.Array:
        """Adds the margins to an array over positions, and zeros after the row."""
        width = self.width if self.banded else -(-self.length // self.keys) * self.keys
        return _pad(array, axis, self.margin, width - self.length + self.margin)

    def key_start(self, query_block: jax.Array, key_block: jax.Array) -> jax.Array:
        """Where a block of keys starts in an array with margins."""
        return query_block * self.block if self.banded else key_block * self.keys

    def key_ranges(self, segments: jax.Array) -> tuple[jax.Array, jax.Array]:
        """First and one after last block of keys of each block of queries [S / T], from segments [S].

        A range spans all tokens of the segments that the block has. Padding needs no keys.
        """
        index = jnp.arange(self.length, dtype=jnp.int32)
        slot = jnp.clip(segments, 0, self.length)  # more segments than positions share a slot, which costs only time
        first = jnp.full(self.length + 1, self.width, jnp.int32).at[slot].min(index)[slot]
        last = jnp.full(self.length + 1, -1, jnp.int32).at[slot].max(index)[slot]
        real = segments != 0
        first, last = jnp.where(real, first, self.width), jnp.where(real, last, -1)
        padding = self.width - self.length
        first = _pad(first, 0, 0, padding, self.width).reshape(-1, self.block).min(axis=1)
        last = _pad(last, 0, 0, padding, -1).reshape(-1, self.block).max(axis=1)
        if self.banded:
            return jnp.zeros_like(first), (last >= 0).astype(jnp.int32)
        start = self.block * jnp.arange(self.blocks, dtype=jnp.int32)
        first, last = jnp.maximum(first, start - self.reach), jnp.minimum(last, start + self.block - 1 + self.reach)
        return first // self.keys, last // self.keys + 1


def attend(inputs: AttentionInputs, spec: AttentionSpec) -> jax.Array:
    """The context [B, S, D], equal to `plain.attend` to rounding, with the same dropout.

    Padding attends to padding, if it attends at all; its outputs are never used.
    """
    query, key, value = (heads.swapaxes(1, 2) for heads in inputs.split_heads(spec.head_width))
    seeds = inputs.seeds if rate_threshold(spec.dropout) else None
    return _attend(query, key, value, inputs.segments.astype(jnp.int32), seeds, spec)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array, seeds: jax.Array | None,
            spec: AttentionSpec) -> jax.Array:
    return _attend_forward(query, key, value, segments, seeds, spec)[0]


def _attend_forward(query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array, seeds: jax.Array | None,
                    spec: AttentionSpec) -> tuple[jax.Array, tuple[Any, ...]]:
    arrays = query, key, value, segments, seeds
    # Named, so that recomputation keeps these residuals and does not attend again.
    context, *statistics = checkpoint_name(_each_row(functools.partial(_row_forward, spec), arrays), "context")
    return context, (*arrays, context, *statistics)


def _attend_backward(spec: AttentionSpec, kept: tuple[Any, ...], gradient: jax.Array) -> tuple[Any, ...]:
    # Behind a barrier, or the compiler would keep what both passes make of the residuals, besides these.
    return *_each_row(functools.partial(_row_backward, spec), (*lax.optimization_barrier(kept), gradient)), None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _each_row(function: Any, arrays: tuple[Any, ...]) -> Any:
    """A function of each row, one after the other: rows have different segments, hence different blocks."""
    if arrays[0].shape[0] == 1:
        return jax.tree.map(lambda array: array[None], function(*jax.tree.map(lambda array: array[0], arrays)))
    return lax.map(lambda row: function(*row), arrays)


def _row_forward(spec: AttentionSpec, query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array,
                 seeds: jax.Array | None) -> tuple[jax.Array, ...]:
    """The context [S, D], and maximum and sum of the softmax [N, S], of a row with heads [N, S, H]."""
    heads, length, head_width = query.shape
    cut = _cut_row(length, spec.window)
    query, key, value, pairs = _prepare(cut, spec, query, key, value, segments, seeds)

    def attend_block(number: jax.Array, results: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        own = _slice(query, number * cut.block, cut.block)

        def step(key_block: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            highest, total, weighted = carry
            pair = pairs.at(number, key_block)
            scores, _ = pair.scores(own, _slice(key, pair.start, cut.keys))
            top = jnp.maximum(highest, scores.max(axis=2))
            weights, shrink = jnp.exp(scores - top[..., None]), jnp.exp(highest - top)
            product = _dot(pair.drop(weights).astype(value.dtype), _slice(value, pair.start, cut.keys), 1)
            return top, total * shrink + weights.sum(axis=2), weighted * shrink[..., None] + product

        nothing = jnp.zeros((heads, cut.block))
        highest, total, weighted = lax.fori_loop(
            *pairs.key_range(number), step, (nothing + MASKED_SCORE, nothing, jnp.zeros((*nothing.shape, head_width))))
        total = jnp.maximum(total, jnp.finfo(total.dtype).tiny)  # a block of padding has no keys
        context = weighted * (pairs.scale / total)[..., None]
        parts = context.swapaxes(0, 1).reshape(cut.block, -1).astype(value.dtype), highest, total
        return tuple(lax.dynamic_update_slice_in_dim(result, part, number * cut.block, axis)
                     for result, part, axis in zip(results, parts, (0, 1, 1), strict=True))

    zeros = _zeros(query, (cut.width, heads * head_width)).astype(value.dtype), *[_zeros(query, (heads, cut.width))] * 2
    context, *statistics = lax.fori_loop(0, cut.blocks, attend_block, zeros)
    return context[:cut.length], *(each[:, :cut.length] for each in statistics)


def _row_backward(spec: AttentionSpec, query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array,
                  seeds: jax.Array | None, context: jax.Array, highest: jax.Array, total: jax.Array,
                  gradient: jax.Array) -> tuple[jax.Array, ...]:
    """Gradients of query, key and value [N, S, H] of a row, from the results of `_row_forward` and their gradient."""
    (heads, length, head_width), dtype = query.shape, query.dtype
    cut = _cut_row(length, spec.window)
    query, key, value, pairs = _prepare(cut, spec, query, key, value, segments, seeds)
    padding = cut.width - cut.length
    above, context = (flat.reshape(cut.length, heads, head_width).swapaxes(0, 1).astype(jnp.float32)
                      for flat in (gradient, context))
    # The softmax's sum divides these smaller arrays, not the weights.
    mean = jnp.sum(above * context, axis=2) / total  # over keys, of each probability times its gradient
    above = (above * (pairs.scale / total)[..., None]).astype(dtype)
    above, mean, highest = (_pad(array, 1, 0, padding) for array in (above, mean, highest))
    # Products that sum over queries are much faster on CPUs with queries in the last axis of the smaller factor.
    turned_query, turned_above = (lax.optimization_barrier(array.swapaxes(1, 2)) for array in (query, above))

    def add_block(number: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        own, own_above, own_highest, own_mean = (
            _slice(array, number * cut.block, cut.block) for array in (query, above, highest, mean))
        turned = [_slice(array, number * cut.block, cut.block, 2) for array in (turned_query, turned_above)]

        def step(key_block: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            pair = pairs.at(number, key_block)
            keys, values = (_slice(array, pair.start, cut.keys) for array in (key, value))
            scores, inside = pair.scores(own, keys)
            weights = jnp.exp(scores - own_highest[..., None])
            kept = pair.drop(weights)
            back = kept * _dot(own_above, values, 2) - weights * own_mean[..., None]
            back = (back if inside is None else jnp.where(inside, back, 0)).astype(dtype)
            query_gradient, *totals = carry
            added = [_add(total, _dot(factor, matrix, 1), pair.start)
                     for total, factor, matrix in zip(totals, turned, (back, kept.astype(dtype)))]
            return query_gradient + _dot(back, keys, 1), *added

        query_gradient, *totals = sums
        part, *totals = lax.fori_loop(*pairs.key_range(number), step,
                                      (jnp.zeros((heads, cut.block, head_width)), *totals))
        part = (part * head_width ** -0.5).astype(dtype)
        return lax.dynamic_update_slice_in_dim(query_gradient, part, number * cut.block, 1), *totals

    query_gradient, *totals = lax.fori_loop(0, cut.blocks, add_block, (
        _zeros(mean, query.shape).astype(dtype), *[_zeros(mean, (heads, head_width, key.shape[1]))] * 2))
    return query_gradient[:, :cut.length], *(
        _slice(total, cut.margin, cut.length, 2).swapaxes(1, 2).astype(dtype) for total in totals)


class _Pair(NamedTuple):
    """A block of queries and a block of keys."""
    spec: AttentionSpec
    start: jax.Array  # of the keys, in arrays with margins
    visible: jax.Array  # which queries attend to which keys, booleans [T, K]
    keep: jax.Array | None  # dropout mask [N, T, K]

    def scores(self, queries: jax.Array, keys: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """Masked scores [N, T, K] in float32, and where clamping left them unchanged, if it is on."""
        scores, inside = _dot(queries, keys, 2), None
        if self.spec.clamp:
            free, scores = scores, jnp.clip(scores, -CLAMP, CLAMP)
            inside = free == scores
        return jnp.where(self.visible, scores, MASKED_SCORE), inside

    def drop(self, weights: jax.Array) -> jax.Array:
        """Weights after dropout, without the factor on those that are kept."""
        return weights if self.keep is None else jnp.where(self.keep, weights, 0)


class _Pairs(NamedTuple):
    """The pairs of blocks of a row."""
    cut: _Cut
    spec: AttentionSpec
    query_segments: jax.Array  # of all blocks of queries
    key_segments: jax.Array  # with margins
    ranges: tuple[jax.Array, jax.Array]  # of blocks of keys, for each block of queries
    seeds: jax.Array | None

    @property
    def scale(self) -> float:
        """The factor on weights that dropout keeps."""
        return 1.0 if self.seeds is None else kept_scale(self.spec.dropout)

    def key_range(self, query_block: jax.Array) -> tuple[jax.Array, jax.Array]:
        """First and one after last block of keys of a block of queries."""
        first, end = self.ranges
        return first[query_block], end[query_block]

    def at(self, query_block: jax.Array, key_block: jax.Array) -> _Pair:
        """A pair, by the numbers of its blocks."""
        cut, start = self.cut, self.cut.key_start(query_block, key_block)
        row = query_block * cut.block + jnp.arange(cut.block)[:, None]
        column = start - cut.margin + jnp.arange(cut.keys)
        visible = (_slice(self.query_segments, query_block * cut.block, cut.block, 0)[:, None]
                   == _slice(self.key_segments, start, cut.keys, 0))
        if cut.reach < cut.length:
            visible &= jnp.abs(row - column) <= cut.reach
        return _Pair(self.spec, start, visible, self._keep(row.astype(jnp.uint32), column.astype(jnp.uint32)))

    def _keep(self, row: jax.Array, column: jax.Array) -> jax.Array | None:
        """The mask of `dropout.keep_mask` at rows [T, 1] and columns [K]."""
        if self.seeds is None:
            return None
        quarter = jnp.uint32(-(-self.cut.length // ELEMENTS_PER_WORD))
        words = hash_words(row * quarter + column % quarter, *(self.seeds[:, None, None, i] for i in range(2)))
        return is_kept(words, column // quarter, rate_threshold(self.spec.dropout))


def _cut_row(length: int, window: int) -> _Cut:
    """The blocks of a row of S = `length` positions."""
    reach = min(window // 2, length) if window else length
    if BAND_BLOCK + 2 * reach <= min(BAND_KEYS, length):
        return _Cut(length, BAND_BLOCK, BAND_BLOCK + 2 * reach, reach, reach, banded=True)
    # Blocks of about the same size.
    block, keys = (min(math.ceil(length / math.ceil(length / longest) / 8) * 8, length) for longest in (QUERIES, KEYS))
    return _Cut(length, block, keys, 0, reach, banded=False)


def _prepare(cut: _Cut, spec: AttentionSpec, query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array,
             seeds: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array, _Pairs]:
    """Scaled queries, and keys and values, with the positions that fill the blocks; and the pairs of blocks."""
    padding = cut.width - cut.length
    query = _pad(query * spec.head_width ** -0.5, 1, 0, padding)
    pairs = _Pairs(cut, spec, _pad(segments, 0, 0, padding), cut.pad_keys(segments, 0), cut.key_ranges(segments), seeds)
    return query, cut.pad_keys(key, 1), cut.pad_keys(value, 1), pairs


def _pad(array: jax.Array, axis: int, before: int, after: int, value: int = 0) -> jax.Array:
    widths = [(before, after) if number == axis else (0, 0) for number in range(array.ndim)]
    return jnp.pad(array, widths, constant_values=value) if before or after else array


def _zeros(after: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Zeros that depend on an array, or the compiler would make those of all layers at the start of the program."""
    first = after[(0,) * after.ndim].astype(jnp.float32)
    return jnp.broadcast_to(jnp.where(jnp.isnan(first), first, 0), shape)


def _slice(array: jax.Array, start: jax.Array | int, size: int, axis: int = 1) -> jax.Array:
    return lax.dynamic_slice_in_dim(array, start, size, axis)


def _add(total: jax.Array, part: jax.Array, start: jax.Array) -> jax.Array:
    """Adds a part [N, H, K] to the sums over positions [N, H, ...] from a start on."""
    return lax.dynamic_update_slice_in_dim(total, _slice(total, start, part.shape[2], 2) + part, start, 2)


def _dot(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
    """Products of matrices [N, ., .] over the last axis of `a` and an axis of `b`, with float32 sums."""
    return lax.dot_general(a, b, (((2,), (axis,)), ((0,), (0,))), preferred_element_type=jnp.float32)


def preferred(platform: str, length: int) -> bool:
    """Whether rows are so long that it is faster than plain attention, or that plain attention needs too much memory.

    Accelerators compute few blocks at a time slowly.
    """
    return length > 512 if platform == "cpu" else length >= 2048


BACKEND = AttentionBackend("blockwise", attend, needs_shard_map=True, preferred=preferred)
