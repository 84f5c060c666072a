"""Inputs of attention backends, with context and gradients computed from the definition."""
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.model.attention import AttentionBackend, AttentionInputs, AttentionSpec
from spanbert_jax.model.dropout import keep_mask, kept_scale, split_seed

# Allowed error as a share of the largest value of an array.
TOLERANCE = {"float32": 5e-6, "bfloat16": 2e-2}


def make_inputs(spec: AttentionSpec, length: int, heads: int, dtype: str, seed: int = 0,
                rotary: bool = False) -> AttentionInputs:
    """Three rows: three segments followed by padding, one segment, and padding only.

    With clamping, a few queries are so large in the first lane of their head, where all keys are above 1, that all
    their scores exceed the limit, on both sides. Other scores are small, so that every dtype computes them.
    """
    random = np.random.default_rng(seed)
    query, key, value = random.normal(size=(3, 3, length, heads, spec.head_width))
    if spec.clamp:
        key[..., 0] = 1 + np.abs(key[..., 0])
        query[..., 0] = 0
        for number, sign in ((3, -1), (length // 2, 1)):
            query[:, number::length // 4, ::2, 0] = sign * 1e6
    segments = np.zeros((3, length), np.uint8)
    for number, part in enumerate(np.split(np.arange(length * 9 // 10), [length // 5, length // 2]), 1):
        segments[0, part] = number
    segments[1] = 1
    flat = (jnp.asarray(array.reshape(3, length, -1), dtype) for array in (query, key, value))
    seeds = split_seed(jnp.asarray([seed, 7], jnp.uint32), (3, heads)) if spec.dropout else None
    angles = jnp.asarray(random.uniform(0, 2 * np.pi, (3, length, spec.head_width // 2)), jnp.float32)
    return AttentionInputs(tuple(flat), jnp.asarray(segments), seeds,
                           (jnp.cos(angles), jnp.sin(angles)) if rotary else None)


def gradient_above(inputs: AttentionInputs, seed: int = 1) -> jax.Array:
    """A gradient of the context; zero at padding, whose outputs are never used."""
    value = inputs.projections[-1]
    above = np.random.default_rng(seed).normal(size=value.shape)
    return jnp.asarray(above * (np.asarray(inputs.segments) > 0)[..., None], value.dtype)


def attend(backend: AttentionBackend, inputs: AttentionInputs, spec: AttentionSpec) -> jax.Array:
    """The context [B, S, D] by a backend."""
    return backend.attend(inputs._replace(projections=backend.arrange(inputs.projections)), spec)


def computed(backend: AttentionBackend, inputs: AttentionInputs, spec: AttentionSpec,
             above: jax.Array) -> list[np.ndarray]:
    """The context by a backend, and the gradients of query, key and value, all [B, S, D]."""
    arrays = _program(backend, spec)(inputs, above)
    assert {array.dtype for array in arrays} == {above.dtype}
    return [np.asarray(array, np.float64) for array in arrays]


def by_definition(inputs: AttentionInputs, spec: AttentionSpec, above: jax.Array) -> list[np.ndarray]:
    """The result of `computed` in float64, from the definition softmax(Q K' / sqrt(H)) V and its derivatives.

    Rotation of queries and keys is a product of complex numbers, whose derivative is the product with the conjugate.
    """
    rows, length, _ = above.shape

    def heads_first(flat: jax.Array) -> np.ndarray:
        return np.asarray(flat, np.float64).reshape(rows, length, -1, spec.head_width).swapaxes(1, 2)

    query, key, value, over = (heads_first(flat) for flat in (*inputs.projections, above))
    turn = np.ones(1)
    if inputs.rotary is not None:
        cos, sin = (np.asarray(part, np.float64)[:, None] for part in inputs.rotary)
        turn = cos + 1j * sin
    query, key = _rotated(query, turn), _rotated(key, turn)
    scores = query @ key.swapaxes(2, 3) / spec.head_width ** 0.5
    limit = 1e4 if spec.clamp else np.inf
    inside = np.abs(scores) < limit
    # A padding token that sees no token attends to all positions equally; its context is not used.
    scores = np.where(_visible(np.asarray(inputs.segments), spec.window), scores.clip(-limit, limit), -1e300)
    weights = np.exp(scores - scores.max(axis=3, keepdims=True))
    weights /= weights.sum(axis=3, keepdims=True)
    kept = 1.0
    if inputs.seeds is not None:
        kept = keep_mask(inputs.seeds, length, length, spec.dropout) * kept_scale(spec.dropout)
    back = over @ value.swapaxes(2, 3) * kept
    back = weights * (back - np.sum(back * weights, axis=3, keepdims=True)) * inside / spec.head_width ** 0.5
    weights = weights * kept
    arrays = (weights @ value, _rotated(back @ key, turn.conj()), _rotated(back.swapaxes(2, 3) @ query, turn.conj()),
              weights.swapaxes(2, 3) @ over)
    return [array.swapaxes(1, 2).reshape(above.shape) for array in arrays]


def assert_as_defined(backend: AttentionBackend, inputs: AttentionInputs, spec: AttentionSpec) -> None:
    """Asserts that the context is right at every token, and the gradients everywhere."""
    above = gradient_above(inputs)
    (context, *gradients), (right, *right_gradients) = (f(inputs, spec, above) for f in (
        lambda *arguments: computed(backend, *arguments), by_definition))
    assert np.isfinite(context).all()
    real = (np.asarray(inputs.segments) > 0)[..., None]
    assert_near([context * real, *gradients], [right * real, *right_gradients], above.dtype.name)


def assert_near(arrays: list[np.ndarray], right: list[np.ndarray], dtype: str) -> None:
    """Asserts that arrays equal the expected ones to the rounding of a dtype."""
    for name, got, expected in zip(("context", "query", "key", "value"), arrays, right, strict=True):
        error = np.abs(got - expected).max() / np.abs(expected).max()
        assert error < TOLERANCE[dtype], (name, error)


def tpu_kernels(backend: AttentionBackend, inputs: AttentionInputs, spec: AttentionSpec) -> int:
    """Number of kernels in the program of context and gradients, lowered for a TPU on any machine."""
    device = jax.sharding.AbstractDevice("TPU v5 lite", num_cores=1, platform="tpu")
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((1,), ("x",), abstract_device=device)):
        lowered = _program(backend, spec).trace(inputs, inputs.projections[0]).lower(lowering_platforms=("tpu",))
    return lowered.as_text().count("@tpu_custom_call")


def _program(backend: AttentionBackend,
             spec: AttentionSpec) -> Callable[[AttentionInputs, jax.Array], tuple[jax.Array, ...]]:
    """The context, and from its gradient those of query, key and value."""
    def run(inputs: AttentionInputs, above: jax.Array) -> tuple[jax.Array, ...]:
        context, pull = jax.vjp(lambda *flat: attend(backend, inputs._replace(projections=flat), spec),
                                *inputs.projections)
        return context, *pull(above)

    return jax.jit(run)


def _rotated(heads: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Each pair of elements i and i + H / 2 of [..., H], as a complex number, times `turn`."""
    real, imaginary = np.split(heads, 2, axis=-1)
    product = (real + 1j * imaginary) * turn
    return np.concatenate([product.real, product.imag], axis=-1)


def _visible(segments: np.ndarray, window: int) -> np.ndarray:
    """The attention mask [B, 1, T, S]. Padding attends to every token, or to all padding in an empty row."""
    real = segments > 0
    same = segments[:, :, None] == segments[:, None, :]
    for_padding = real | ~real.any(axis=1, keepdims=True)
    position = np.arange(segments.shape[1])
    near = np.abs(position[:, None] - position) <= (window // 2 if window else len(position))
    return (np.where(real[:, :, None], same, for_padding[:, None, :]) & near)[:, None]
