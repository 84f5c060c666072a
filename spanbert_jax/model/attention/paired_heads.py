"""A TPU kernel for rows of up to 1,024 positions and heads of width 64 or 128.

One step of the grid computes 128 lanes of one row, a pair of heads or a wide one, entirely in VMEM: some queries at a
time, with all keys or those of their window. The scores are never written to memory. Queries, keys and values stay in
the layout of the projection, [B, S, 3 D] with those of a group of lanes side by side, so nothing is transposed or
padded. A head is selected from its pair by zeroing the other head's 64 lanes, which is free because the matrix unit
works on 128 lanes at a time. Rotary positions rotate queries and keys here, and their gradients back. The backward pass
recomputes the scores; besides the projections it needs only the context, which the output projection keeps anyway.
Dropout draws the same mask as `dropout.keep_mask`.
"""
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from spanbert_jax.model.attention import AttentionBackend, AttentionInputs, AttentionSpec
from spanbert_jax.model.attention.plain import CLAMP, MASKED_SCORE
from spanbert_jax.model.dropout import ELEMENTS_PER_WORD, hash_words, is_kept, kept_scale, rate_threshold

HEAD_WIDTHS, LANES = (64, 128), 128
LONGEST = 1024  # a whole row lies in VMEM
# Queries computed at a time, with all keys and with those of a window: the most whose scores leave room in VMEM, and
# few enough to compute few scores outside of the window.
QUERIES, WINDOW_QUERIES = 512, 128


def limits(length: int, heads: int, spec: AttentionSpec) -> str:
    """Why rows of this length with so many heads on a device are not supported; "" if they are."""
    if spec.head_width not in HEAD_WIDTHS or heads * spec.head_width % LANES:
        return (f"it takes pairs of heads 64 wide, or heads 128 wide, and a device has {heads} heads "
                f"{spec.head_width} wide")
    if length % LANES or length > LONGEST:
        return f"it takes rows of a multiple of {LANES} positions up to {LONGEST}, and these have {length}"
    return ""


def join(parts: Sequence[jax.Array]) -> jax.Array:
    """Joins arrays of queries, keys and values, ordered by groups of 128 lanes. Three [..., D] -> [..., 3 D]."""
    groups = [part.reshape(*part.shape[:-1], -1, LANES) for part in parts]
    return jnp.stack(groups, axis=-2).reshape(*parts[0].shape[:-1], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def attend(inputs: AttentionInputs, spec: AttentionSpec) -> jax.Array:
    """The context [B, S, D], equal to `plain.attend` to rounding, with the same dropout.

    Padding attends to padding, not to every token, which saves a twentieth of the time; its outputs are never used.
    """
    return _run(_forward, inputs, spec, [])


def attend_in_pieces(inputs: AttentionInputs, spec: AttentionSpec) -> jax.Array:
    """The context [B, S, D] of layers with a window in rows of any multiple of 128 positions, without dropout.

    A row is cut into pieces of up to `LONGEST` positions that overlap by the window, so every token has its whole
    window in the piece that its context is taken from. `inputs` has three projections.
    """
    length, reach = inputs.segments.shape[1], spec.window // 2
    size = min(length, LONGEST)
    starts = [min(first, length - size) for first in range(0, max(length - 2 * reach, 1), LONGEST - 2 * reach)]
    begins = [0, *(start + reach for start in starts[1:]), length]

    def cut(array: jax.Array) -> jax.Array:
        return jnp.concatenate([array[:, start:start + size] for start in starts])

    rotary = None if inputs.rotary is None else (cut(inputs.rotary[0]), cut(inputs.rotary[1]))
    context = attend(AttentionInputs((join([cut(part) for part in inputs.projections]),), cut(inputs.segments), None,
                                     rotary), spec)
    parts = [part[:, begin - start:end - start] for part, start, begin, end in zip(
        jnp.split(context, len(starts)), starts, begins, begins[1:])]
    return jnp.concatenate(parts, axis=1)


def _attend_forward(inputs: AttentionInputs,
                    spec: AttentionSpec) -> tuple[jax.Array, tuple[AttentionInputs, jax.Array]]:
    # Named inside the rule, so that recomputation keeps this residual and does not run the kernel again.
    context = checkpoint_name(attend(inputs, spec), "context")
    return context, (inputs, context)


def _attend_backward(spec: AttentionSpec, kept: tuple[AttentionInputs, jax.Array],
                     gradient: jax.Array) -> tuple[AttentionInputs]:
    inputs, context = kept
    nothing: Any = None  # segments and positions are integers
    return AttentionInputs((_run(_backward, inputs, spec, [context, gradient]),), nothing, None),


attend.defvjp(_attend_forward, _attend_backward)


def _run(kernel: Callable[..., None], inputs: AttentionInputs, spec: AttentionSpec, more: list[jax.Array]) -> jax.Array:
    """Runs a kernel over the grid (row, group of 128 lanes).

    `_forward` returns the context [B, S, D]; `_backward`, which has `more` inputs [B, S, D], the gradient of the joined
    projections [B, S, 3 D].
    """
    projections, = inputs.projections
    rows, length, width = projections.shape
    spec = spec if inputs.seeds is not None else spec._replace(dropout=0.0)
    threshold = rate_threshold(spec.dropout)
    seeds = inputs.seeds if threshold else jnp.zeros((1, 1, 2), jnp.uint32)
    group, triple = (pl.BlockSpec((None, length, lanes), lambda row, group, *_: (row, 0, group))
                     for lanes in (LANES, 3 * LANES))
    angles = _lane_angles(inputs, spec)
    segments = inputs.segments.astype(jnp.int32)
    return pl.pallas_call(
        functools.partial(kernel, threshold=threshold, spec=spec),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1, grid=(rows, width // (3 * LANES)),
            in_specs=[pl.BlockSpec((None, length, 1), lambda row, *_: (row, 0, 0)),
                      pl.BlockSpec((None, 1, length), lambda row, *_: (row, 0, 0)),
                      (pl.BlockSpec((None, length, LANES), lambda row, *_: (row, 0, 0)),) * len(angles), triple,
                      *[group] * len(more)],
            out_specs=triple if more else group,
            scratch_shapes=[pltpu.VMEM((length, LANES), projections.dtype),
                            *[pltpu.VMEM((length, LANES), jnp.float32)] * len(more)]),
        out_shape=jax.ShapeDtypeStruct((rows, length, width if more else width // 3), projections.dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        name=f"paired_attention{kernel.__name__}",
    )(seeds, segments[:, :, None], segments[:, None, :], angles, projections, *more)


def _forward(seeds: Any, query_segments: Any, key_segments: Any, angles: Any, projections: Any, context: Any,
             keys: Any, *, threshold: int, spec: AttentionSpec) -> None:
    """Writes the context of a group of lanes. The softmax is normalized after the product with the values.

    `angles` are those of `_lane_angles`; `keys` takes the rotated keys.
    """
    keys[...] = _rotated(projections[:, LANES:2 * LANES], angles, spec)
    for block in _blocks(keys.shape[0], spec.window):
        query, near, values = _queries(projections, angles, block, spec), keys[block.keys], _values(projections, block)
        visible = _visible(query_segments, key_segments, block, spec)
        parts = []
        for head, lanes in enumerate(_head_lanes(query.shape, spec)):
            scores = _dot(_select(lanes, query).astype(near.dtype), near, 1, 1)
            weights, share, _ = _softmax(scores, visible, spec.clamp, near.dtype)
            if threshold:
                weights = jnp.where(_keep(seeds, head, block, spec, keys.shape[0], threshold), weights, 0)
            parts.append(_dot(weights.astype(values.dtype), values, 1, 0) * (share * kept_scale(spec.dropout)))
        context[block.queries] = _side_by_side(parts, spec).astype(context.dtype)


def _backward(seeds: Any, query_segments: Any, key_segments: Any, angles: Any, projections: Any, context: Any,
              gradient: Any, projections_gradient: Any, keys: Any, key_sum: Any, value_sum: Any, *, threshold: int,
              spec: AttentionSpec) -> None:
    """Writes the gradients of a group of lanes. The softmax's sum divides the products, which are smaller arrays.

    `key_sum` and `value_sum` take the gradients of keys and values, in float32.
    """
    keys[...] = _rotated(projections[:, LANES:2 * LANES], angles, spec)
    key_sum[...] = value_sum[...] = jnp.zeros(key_sum.shape, jnp.float32)
    dtype = keys.dtype
    for block in _blocks(keys.shape[0], spec.window):
        query, near, values = _queries(projections, angles, block, spec), keys[block.keys], _values(projections, block)
        visible = _visible(query_segments, key_segments, block, spec)
        above = gradient[block.queries].astype(jnp.float32)
        # Summed over a head's lanes: the sum over keys of each probability times its gradient.
        product = above * context[block.queries].astype(jnp.float32)
        parts = []
        for head, lanes in enumerate(_head_lanes(query.shape, spec)):
            own, own_above = _select(lanes, query), _select(lanes, above) * kept_scale(spec.dropout)
            weights, share, inside = _softmax(_dot(own.astype(dtype), near, 1, 1), visible, spec.clamp, dtype)
            kept = weights
            if threshold:
                kept = jnp.where(_keep(seeds, head, block, spec, keys.shape[0], threshold), weights, 0)
            mean = jnp.sum(_select(lanes, product), axis=1, keepdims=True)
            back = kept * _dot(own_above.astype(dtype), values, 1, 1) - weights * mean
            back = (back if inside is None else jnp.where(inside, back, 0)).astype(dtype)
            value_sum[block.keys] += _dot(kept.astype(dtype), (own_above * share).astype(dtype), 0, 0)
            key_sum[block.keys] += _dot(back, (own * share).astype(dtype), 0, 0)
            parts.append(_dot(back, near, 1, 0) * (share * spec.head_width ** -0.5))
        query_gradient = _rotate(_side_by_side(parts, spec), angles, spec, block.queries, back=True)
        projections_gradient[block.queries, :LANES] = query_gradient.astype(dtype)
    key_gradient = _rotate(key_sum[...], angles, spec, back=True)
    projections_gradient[:, LANES:2 * LANES] = key_gradient.astype(dtype)
    projections_gradient[:, 2 * LANES:] = value_sum[...].astype(dtype)


class _Block(NamedTuple):
    """Queries of a row that are computed together, and the keys that they may attend to."""
    queries: slice
    keys: slice

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of queries and keys."""
        return self.queries.stop - self.queries.start, self.keys.stop - self.keys.start


def _blocks(length: int, window: int) -> Iterator[_Block]:
    """All queries of a row, in blocks."""
    size = math.gcd(length, WINDOW_QUERIES if window else QUERIES)
    # Whole tiles of keys, half of those outside of the block on each side.
    outside = -(-(window // 2 * 2) // LANES) * LANES
    count = min(length, size + outside) if window else length
    for first in range(0, length, size):
        start = min(max(first - outside // 2, 0), length - count)
        yield _Block(slice(first, first + size), slice(start, start + count))


def _queries(projections: Any, angles: Any, block: _Block, spec: AttentionSpec) -> jax.Array:
    """Rotated queries of a block, divided by the root of the head width. Float32."""
    query = _rotated(projections[block.queries, :LANES], angles, spec, block.queries)
    return query.astype(jnp.float32) * spec.head_width ** -0.5


def _values(projections: Any, block: _Block) -> jax.Array:
    """Values of the keys of a block."""
    return projections[block.keys, 2 * LANES:]


def _rotated(x: jax.Array, angles: Any, spec: AttentionSpec, positions: slice = slice(None)) -> jax.Array:
    """Queries or keys [T, 128], rotated in float32, in the dtype of `x`."""
    return _rotate(x.astype(jnp.float32), angles, spec, positions).astype(x.dtype) if angles else x


def _lane_angles(inputs: AttentionInputs, spec: AttentionSpec) -> tuple[jax.Array, ...]:
    """Cosine and sine for each lane, [B, S, 128]; the sine is negative in the first half of a head. Empty without."""
    if inputs.rotary is None:
        return ()
    cos, sin = inputs.rotary
    heads = LANES // spec.head_width
    return jnp.concatenate([cos, cos] * heads, axis=-1), jnp.concatenate([-sin, sin] * heads, axis=-1)


def _rotate(x: jax.Array, angles: Any, spec: AttentionSpec, positions: slice = slice(None), *,
            back: bool = False) -> jax.Array:
    """Rotates [T, 128] by their positions, as `AttentionInputs.rotate`, or back, which is its transpose."""
    if not angles:
        return x
    cos, sin = (part[positions] for part in angles)
    half = spec.head_width // 2
    other = pltpu.roll(x, half, 1)
    if spec.head_width < LANES:
        first = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1) % spec.head_width < half
        other = jnp.where(first, pltpu.roll(x, LANES - half, 1), other)
    return x * cos - other * sin if back else x * cos + other * sin


def _visible(query_segments: Any, key_segments: Any, block: _Block, spec: AttentionSpec) -> jax.Array:
    """Booleans [T, K]: which queries of a block attend to which of its keys."""
    # Rolled, so that keys begin in the first lane, as the scores do.
    keys = key_segments[...]
    if block.keys.start:
        keys = pltpu.roll(keys, keys.shape[1] - block.keys.start, 1)
    visible = query_segments[block.queries] == keys[:, :block.shape[1]]
    if spec.window:
        ahead = (jax.lax.broadcasted_iota(jnp.int32, block.shape, 1)
                 - jax.lax.broadcasted_iota(jnp.int32, block.shape, 0)) + (block.keys.start - block.queries.start)
        visible &= jnp.abs(ahead) <= spec.window // 2
    return visible


def _dot(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int) -> jax.Array:
    """A matrix product over an axis of each, in float32."""
    return jax.lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=jnp.float32)


def _head_lanes(shape: tuple[int, ...], spec: AttentionSpec) -> list[Any]:
    """The lanes of each head, booleans; None for all lanes."""
    if spec.head_width == LANES:
        return [None]
    left = jax.lax.broadcasted_iota(jnp.int32, shape, 1) < spec.head_width
    return [left, ~left]


def _select(lanes: Any, x: jax.Array) -> jax.Array:
    """Zeroes the lanes of the other head."""
    return x if lanes is None else jnp.where(lanes, x, 0)


def _side_by_side(parts: list[jax.Array], spec: AttentionSpec) -> jax.Array:
    """The lanes of each head from its own array [T, 128]."""
    first, *second = parts
    return jnp.where(_head_lanes(first.shape, spec)[0], first, second[0]) if second else first


def _softmax(scores: jax.Array, visible: jax.Array, clamp: bool,
             dtype: Any) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """The unnormalized softmax, one over its sum [T, 1], and where clamping left scores unchanged, if it is on."""
    inside = None
    if clamp:
        free, scores = scores, jnp.clip(scores, -CLAMP, CLAMP)
        inside = free == scores
    scores = jnp.where(visible, scores, MASKED_SCORE)
    weights = jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))
    total = jnp.sum(weights, axis=1, keepdims=True)
    # An approximate reciprocal is as exact as bfloat16, and takes an eighth of the operations.
    return weights, pl.reciprocal(total, approx=dtype == jnp.bfloat16), inside


def _keep(seeds: Any, head: int, block: _Block, spec: AttentionSpec, length: int, threshold: int) -> jax.Array:
    """The mask of `dropout.keep_mask` for a block of one head of the current group."""
    row, index = pl.program_id(0), LANES // spec.head_width * pl.program_id(1) + head
    rows, keys = block.shape
    quarter = length // ELEMENTS_PER_WORD
    # Where a quarter of a row fills the lanes, each word is hashed once for its four elements.
    shared = keys == length and quarter % LANES == 0
    shape = rows, quarter if shared else keys
    column = block.keys.start + jax.lax.broadcasted_iota(jnp.int32, shape, 1)
    query = block.queries.start + jax.lax.broadcasted_iota(jnp.int32, shape, 0)
    position = query * quarter + column % quarter
    words = hash_words(position.astype(jnp.uint32), seeds[row, index, 0], seeds[row, index, 1])
    if shared:
        return jnp.concatenate([is_kept(words, part, threshold) for part in range(ELEMENTS_PER_WORD)], axis=1)
    return is_kept(words, column // quarter, threshold)


BACKEND = AttentionBackend("paired_heads", attend, platform="tpu", needs_shard_map=True, dtypes=("bfloat16",),
                           limits=limits, join=join)
