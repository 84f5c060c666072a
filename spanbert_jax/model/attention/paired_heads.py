"""A TPU kernel for rows of up to 512 positions and heads of width 64: two heads side by side fill the 128 lanes.

One step of the grid computes one pair of heads of one row, entirely in VMEM; the scores are never written to memory.
Queries, keys and values stay in the layout of the projection, [B, S, 3 D] with those of a pair side by side, so nothing
is transposed or padded. A head is selected from its pair by zeroing the other head's 64 lanes, which is free because
the matrix unit works on 128 lanes at a time. The backward pass recomputes the scores; besides the projections it needs
only the context, which the output projection keeps anyway. Dropout draws the same mask as `dropout.keep_mask`.
"""
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from spanbert_jax.model.attention import AttentionBackend, AttentionInputs, AttentionSpec
from spanbert_jax.model.attention.plain import CLAMP, MASKED_SCORE
from spanbert_jax.model.dropout import ELEMENTS_PER_WORD, hash_words, is_kept, rate_threshold

HEAD_WIDTH, LANES = 64, 128
LONGEST = 512  # a whole row lies in VMEM, and its scores take the square of this


def limits(length: int, heads: int, spec: AttentionSpec) -> str:
    """Why rows of this length with so many heads on a device are not supported; "" if they are."""
    if spec.head_width != HEAD_WIDTH or heads % 2:
        return f"it takes pairs of heads {HEAD_WIDTH} wide, and a device has {heads} heads {spec.head_width} wide"
    if length % LANES or length > LONGEST:
        return f"it takes rows of {LANES}, 256, 384 or {LONGEST} positions, and these have {length}"
    if spec.window:
        return f"it has no window, and this layer attends to {spec.window} positions"
    return ""


def join(parts: Sequence[jax.Array]) -> jax.Array:
    """Joins arrays of queries, keys and values, ordered by pair of heads. Three [..., D] -> [..., 3 D]."""
    pairs = [part.reshape(*part.shape[:-1], -1, LANES) for part in parts]
    return jnp.stack(pairs, axis=-2).reshape(*parts[0].shape[:-1], -1)


def attend(inputs: AttentionInputs, spec: AttentionSpec) -> jax.Array:
    """The context [B, S, D], equal to `plain.attend` to rounding, with the same dropout.

    Padding attends to padding, not to every token, which saves a twentieth of the time; its outputs are never used.
    """
    if inputs.rotary is not None:
        joined, = inputs.projections
        pairs = joined.reshape(*joined.shape[:2], -1, 3, LANES // HEAD_WIDTH, HEAD_WIDTH)
        rotated = jnp.concatenate([inputs.rotate(pairs[..., :2, :, :]), pairs[..., 2:, :, :]], axis=-3)
        inputs = inputs._replace(projections=(rotated.reshape(joined.shape),), rotary=None)
    return _attend(inputs, spec)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _attend(inputs: AttentionInputs, spec: AttentionSpec) -> jax.Array:
    return _run(_forward, inputs, spec, [])


def _attend_forward(inputs: AttentionInputs,
                    spec: AttentionSpec) -> tuple[jax.Array, tuple[AttentionInputs, jax.Array]]:
    # Named inside the rule, so that recomputation keeps this residual and does not run the kernel again.
    context = checkpoint_name(_attend(inputs, spec), "context")
    return context, (inputs, context)


def _attend_backward(spec: AttentionSpec, kept: tuple[AttentionInputs, jax.Array],
                     gradient: jax.Array) -> tuple[AttentionInputs]:
    inputs, context = kept
    nothing: Any = None  # the segments, as integers, have no gradient
    return AttentionInputs((_run(_backward, inputs, spec, [context, gradient]),), nothing, None),


_attend.defvjp(_attend_forward, _attend_backward)


def _run(kernel: Callable[..., None], inputs: AttentionInputs, spec: AttentionSpec, more: list[jax.Array]) -> jax.Array:
    """Runs a kernel over the grid (row, pair of heads).

    `_forward` returns the context [B, S, D]; `_backward`, which has `more` inputs [B, S, D], the gradient of the joined
    projections [B, S, 3 D].
    """
    projections, = inputs.projections
    rows, length, width = projections.shape
    threshold = 0 if inputs.seeds is None else rate_threshold(spec.dropout)
    seeds = inputs.seeds if threshold else jnp.zeros((1, 1, 2), jnp.uint32)
    pair, triple = (pl.BlockSpec((None, length, lanes), lambda row, pair, *_: (row, 0, pair))
                    for lanes in (LANES, 3 * LANES))
    segments = inputs.segments.astype(jnp.int32)
    return pl.pallas_call(
        functools.partial(kernel, threshold=threshold, clamp=spec.clamp),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1, grid=(rows, width // (3 * LANES)),
            in_specs=[pl.BlockSpec((None, length, 1), lambda row, *_: (row, 0, 0)),
                      pl.BlockSpec((None, 1, length), lambda row, *_: (row, 0, 0)), triple, *[pair] * len(more)],
            out_specs=triple if more else pair),
        out_shape=jax.ShapeDtypeStruct((rows, length, width if more else width // 3), projections.dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        name=f"paired_attention{kernel.__name__}",
    )(seeds, segments[:, :, None], segments[:, None, :], projections, *more)


def _forward(seeds: Any, query_segments: Any, key_segments: Any, projections: Any, context: Any, *, threshold: int,
             clamp: bool) -> None:
    """Writes the context of a pair of heads. The softmax is normalized after the product with the values."""
    query, key, value = _parts(projections)
    left, scaled = _left_lanes(query.shape), _scaled(query)
    visible = query_segments[...] == key_segments[...]
    halves = []
    for head, lanes in enumerate((left, ~left)):
        scores = _dot(jnp.where(lanes, scaled, 0).astype(query.dtype), key, 1, 1)
        weights, total, _ = _softmax(scores, visible, clamp)
        if threshold:
            weights = jnp.where(_keep(seeds, head, scores.shape, threshold), weights, 0)
        halves.append(_dot(weights.astype(value.dtype), value, 1, 0) * (_scale(threshold) / total))
    context[...] = jnp.where(left, halves[0], halves[1]).astype(context.dtype)


def _backward(seeds: Any, query_segments: Any, key_segments: Any, projections: Any, context: Any, gradient: Any,
              projections_gradient: Any, *, threshold: int, clamp: bool) -> None:
    """Writes the gradients of a pair of heads. The softmax's sum divides the products, which are smaller arrays."""
    query, key, value = _parts(projections)
    dtype = query.dtype
    left, scaled, above = _left_lanes(query.shape), _scaled(query), gradient[...].astype(jnp.float32)
    visible = query_segments[...] == key_segments[...]
    # Summed over a head's lanes: the sum over keys of each probability times its gradient.
    product = above * context[...].astype(jnp.float32)
    halves: list[Any] = []
    key_sum: Any = 0.0
    value_sum: Any = 0.0
    for head, lanes in enumerate((left, ~left)):
        own, own_above = jnp.where(lanes, scaled, 0), jnp.where(lanes, above, 0) * _scale(threshold)
        weights, total, inside = _softmax(_dot(own.astype(dtype), key, 1, 1), visible, clamp)
        kept = weights
        if threshold:
            kept = jnp.where(_keep(seeds, head, weights.shape, threshold), weights, 0)
        mean = jnp.sum(jnp.where(lanes, product, 0), axis=1, keepdims=True)
        back = kept * _dot(own_above.astype(dtype), value, 1, 1) - weights * mean
        back = (back if inside is None else jnp.where(inside, back, 0)).astype(dtype)
        share = 1 / total
        value_sum += _dot(kept.astype(dtype), (own_above * share).astype(dtype), 0, 0)
        key_sum += _dot(back, (own * share).astype(dtype), 0, 0)
        halves.append(_dot(back, key, 1, 0) * (share * HEAD_WIDTH ** -0.5))
    for part, sums in enumerate((jnp.where(left, halves[0], halves[1]), key_sum, value_sum)):
        projections_gradient[:, part * LANES:(part + 1) * LANES] = sums.astype(dtype)


def _parts(projections: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Query, key and value of a pair of heads."""
    return tuple(projections[:, part * LANES:(part + 1) * LANES] for part in range(3))


def _dot(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int) -> jax.Array:
    """A matrix product over an axis of each, in float32."""
    return jax.lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=jnp.float32)


def _left_lanes(shape: tuple[int, ...]) -> jax.Array:
    """True in the lanes of the first head of a pair."""
    return jax.lax.broadcasted_iota(jnp.int32, shape, 1) < HEAD_WIDTH


def _scaled(query: jax.Array) -> jax.Array:
    """Queries divided by the root of the head width, a power of two, so the division is exact. Float32."""
    return query.astype(jnp.float32) * HEAD_WIDTH ** -0.5


def _scale(threshold: int) -> float:
    return 256 / (256 - threshold)


def _softmax(scores: jax.Array, visible: jax.Array, clamp: bool) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """The unnormalized softmax, its sum [T, 1], and a mask of the scores that clamping left unchanged, if it is on."""
    inside = None
    if clamp:
        free, scores = scores, jnp.clip(scores, -CLAMP, CLAMP)
        inside = free == scores
    scores = jnp.where(visible, scores, MASKED_SCORE)
    weights = jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))
    return weights, jnp.sum(weights, axis=1, keepdims=True), inside


def _keep(seeds: Any, head: int, shape: tuple[int, ...], threshold: int) -> jax.Array:
    """The mask of `dropout.keep_mask` for one head of the current pair."""
    row, index = pl.program_id(0), 2 * pl.program_id(1) + head
    rows, length = shape
    quarter = length // ELEMENTS_PER_WORD
    # Where a quarter of a row fills the lanes, each word is hashed once for its four elements.
    columns = quarter if quarter % LANES == 0 else length
    column = jax.lax.broadcasted_iota(jnp.int32, (rows, columns), 1)
    position = jax.lax.broadcasted_iota(jnp.int32, (rows, columns), 0) * quarter + column % quarter
    words = hash_words(position.astype(jnp.uint32), seeds[row, index, 0], seeds[row, index, 1])
    if columns == quarter:
        return jnp.concatenate([is_kept(words, part, threshold) for part in range(ELEMENTS_PER_WORD)], axis=1)
    return is_kept(words, column // quarter, threshold)


BACKEND = AttentionBackend("paired_heads", attend, platform="tpu", needs_shard_map=True, dtypes=("bfloat16",),
                           limits=limits, join=join)
