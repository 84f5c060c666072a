"""Calls of attention, and what their context and gradients are by definition."""
from collections.abc import Callable
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.model.attention.call import AttentionCall, AttentionKind
from spanbert_jax.model.attention.choice import lay_out
from spanbert_jax.model.dropout import keep_mask, kept_scale, split_seed

# Of the largest number of an array.
TOLERANCE = {"float32": 5e-6, "bfloat16": 2e-2}


def make_call(kind: AttentionKind, length: int, heads: int, dtype: str, seed: int = 0) -> AttentionCall:
    """Three rows: three segments with padding behind them, one segment, and padding alone.

    Where scores are clipped, a few queries are so far along the first lane of their head, in which all keys are above
    1, that all their scores need it, on either side. Beside them scores are small, so that every type computes them.
    """
    random = np.random.default_rng(seed)
    query, key, value = random.normal(size=(3, 3, length, heads, kind.head_width))
    if kind.clamp:
        key[..., 0] = 1 + np.abs(key[..., 0])
        query[..., 0] = 0
        for number, sign in ((3, -1), (length // 2, 1)):
            query[:, number::length // 4, ::2, 0] = sign * 1e6
    segments = np.zeros((3, length), np.uint8)
    for number, part in enumerate(np.split(np.arange(length * 9 // 10), [length // 5, length // 2]), 1):
        segments[0, part] = number
    segments[1] = 1
    flat = (jnp.asarray(array.reshape(3, length, -1), dtype) for array in (query, key, value))
    seeds = split_seed(jnp.asarray([seed, 7], jnp.uint32), (3, heads)) if kind.dropout else None
    return AttentionCall(tuple(flat), jnp.asarray(segments), seeds)


def gradient_above(call: AttentionCall, seed: int = 1) -> jax.Array:
    """A gradient of the context, which for padding is zero, since nothing uses what it computes."""
    value = call.projections[-1]
    above = np.random.default_rng(seed).normal(size=value.shape)
    return jnp.asarray(above * (np.asarray(call.segments) > 0)[..., None], value.dtype)


def attend(module: ModuleType, call: AttentionCall, kind: AttentionKind) -> jax.Array:
    """The context [B, S, D] by a way of computing attention, given its arrays as it takes them."""
    return module.attend(call._replace(projections=lay_out(module, call.projections)), kind)


def computed(module: ModuleType, call: AttentionCall, kind: AttentionKind, above: jax.Array) -> list[np.ndarray]:
    """The context of a way of computing attention, and its gradients of query, key and value, all [B, S, D]."""
    arrays = _program(module, kind)(call, above)
    assert {array.dtype for array in arrays} == {above.dtype}
    return [np.asarray(array, np.float64) for array in arrays]


def by_definition(call: AttentionCall, kind: AttentionKind, above: jax.Array) -> list[np.ndarray]:
    """The same in float64, from the definition of softmax(Q K' / sqrt(H)) V and of its derivatives."""
    rows, length, _ = above.shape

    def heads_first(flat: jax.Array) -> np.ndarray:
        return np.asarray(flat, np.float64).reshape(rows, length, -1, kind.head_width).swapaxes(1, 2)

    query, key, value, over = (heads_first(flat) for flat in (*call.projections, above))
    scores = query @ key.swapaxes(2, 3) / kind.head_width ** 0.5
    limit = 1e4 if kind.clamp else np.inf
    inside = np.abs(scores) < limit
    scores = np.where(_visible(np.asarray(call.segments)), scores.clip(-limit, limit), -np.inf)
    weights = np.exp(scores - scores.max(axis=3, keepdims=True))
    weights /= weights.sum(axis=3, keepdims=True)
    kept = 1.0 if call.seeds is None else keep_mask(call.seeds, length, length, kind.dropout) * kept_scale(kind.dropout)
    back = over @ value.swapaxes(2, 3) * kept
    back = weights * (back - np.sum(back * weights, axis=3, keepdims=True)) * inside / kind.head_width ** 0.5
    weights = weights * kept
    arrays = weights @ value, back @ key, back.swapaxes(2, 3) @ query, weights.swapaxes(2, 3) @ over
    return [array.swapaxes(1, 2).reshape(above.shape) for array in arrays]


def assert_as_defined(module: ModuleType, call: AttentionCall, kind: AttentionKind) -> None:
    """Asserts that a context is right wherever there is a token, and gradients everywhere."""
    above = gradient_above(call)
    (context, *gradients), (right, *right_gradients) = (f(call, kind, above) for f in (
        lambda *arguments: computed(module, *arguments), by_definition))
    assert np.isfinite(context).all()
    real = (np.asarray(call.segments) > 0)[..., None]
    assert_near([context * real, *gradients], [right * real, *right_gradients], above.dtype.name)


def assert_near(arrays: list[np.ndarray], right: list[np.ndarray], dtype: str) -> None:
    """Asserts that arrays are those that are right, to the rounding of a type."""
    for name, got, expected in zip(("context", "query", "key", "value"), arrays, right, strict=True):
        error = np.abs(got - expected).max() / np.abs(expected).max()
        assert error < TOLERANCE[dtype], (name, error)


def tpu_kernels(module: ModuleType, call: AttentionCall, kind: AttentionKind) -> int:
    """How many kernels a TPU is given for a context and its gradients: lowered for one, on any machine."""
    device = jax.sharding.AbstractDevice("TPU v5 lite", num_cores=1, platform="tpu")
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((1,), ("x",), abstract_device=device)):
        lowered = _program(module, kind).trace(call, call.projections[0]).lower(lowering_platforms=("tpu",))
    return lowered.as_text().count("@tpu_custom_call")


def _program(module: ModuleType, kind: AttentionKind) -> Callable[[AttentionCall, jax.Array], tuple[jax.Array, ...]]:
    """The context of a call and, given the gradient of the context, those of query, key and value."""
    def run(call: AttentionCall, above: jax.Array) -> tuple[jax.Array, ...]:
        context, pull = jax.vjp(lambda *flat: attend(module, call._replace(projections=flat), kind), *call.projections)
        return context, *pull(above)

    return jax.jit(run)


def _visible(segments: np.ndarray) -> np.ndarray:
    """[B, 1, T, S], whom each query sees: its segment; padding sees every token, and padding where there is none."""
    real = segments > 0
    same = segments[:, :, None] == segments[:, None, :]
    for_padding = real | ~real.any(axis=1, keepdims=True)
    return np.where(real[:, :, None], same, for_padding[:, None, :])[:, None]
