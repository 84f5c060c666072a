"""Dropout whose mask is a function of a seed and of an element's place, wherever and on whatever it is computed.

The place is hashed with a few integer operations. Beside reading and writing the array they cost an accelerator next to
nothing, where threefry more than doubles the time. No random array is ever kept: what the backward pass needs again is
drawn again. Any part of a mask can be drawn alone, so a kernel that never holds the whole array drops the same elements
as plain code, and so does every mesh of devices.
"""
from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

# One 32-bit word decides for so many elements, by eight bits each.
ELEMENTS_PER_WORD = 4
# Odd multipliers from Wellons's search for 32-bit hashes of low bias (hash-prospector, 2018 and later).
_FIRST, _SECOND = np.uint32(0x21F0AAAD), np.uint32(0x735A2D97)


def rate_threshold(rate: float) -> int:
    """The rate in 256ths, as it is applied: 0.1 becomes 26/256 = 0.1016."""
    return min(round(rate * 256), 255)


def kept_scale(rate: float) -> float:
    """What kept elements are multiplied by, so that the expectation is the input: one by the exact share kept."""
    return 256 / (256 - rate_threshold(rate))


def hash_words(position: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """A random word for each position under a seed of two words; all uint32, broadcast against each other."""
    x = position + first
    x = (x ^ (x >> 16)) * _FIRST
    x = (x ^ (x >> 15) ^ second) * _SECOND
    return x ^ (x >> 15)


def is_kept(words: jax.Array, part: jax.Array | int, threshold: int) -> jax.Array:
    """Whether a word's 8 bits number `part`, counted from the top, keep their element at a rate in 256ths."""
    # Moved to the top, signed, and compared with that of a word of no lower bits: two operations.
    drawn = (words << jnp.asarray(8 * part, jnp.uint32)).astype(jnp.int32)
    return drawn >= np.int32((threshold << 24) - 2 ** 31)


def seed_from(key: jax.Array) -> jax.Array:
    """The seed of all that a typed key decides, uint32 [2]."""
    return jax.random.bits(key, (2,), jnp.uint32)


def split_seed(seed: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """As many seeds as an array of a shape has elements, from one. uint32 [2] -> [*shape, 2]."""
    index = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(math.prod(shape[axis + 1:]))
    first, second = seed
    inner = hash_words(index, first, second)
    return jnp.stack([hash_words(inner, second, first), hash_words(inner, ~second, ~first)], axis=-1)


def keep_mask(seeds: jax.Array, rows: int, columns: int, rate: float) -> jax.Array:
    """Booleans [*matrices, T, J], True where an element is kept, for matrices of T rows and J columns.

    Element (t, j) of a matrix is decided by byte j // Q, from the top, of the word of position t Q + j mod Q; Q is
    J / 4 rounded up. It is kept if that byte, as a signed number, is no less than `rate_threshold` - 128.

    Args:
      seeds: [*matrices, 2], such as `split_seed` gives; one more in the first word is the same mask moved by a place.
    """
    seeds = seeds[..., None, None, :]
    quarter = -(-columns // ELEMENTS_PER_WORD)
    column = np.arange(columns, dtype=np.uint32)
    position = jax.lax.broadcasted_iota(jnp.uint32, (rows, columns), 0) * np.uint32(quarter) + column % quarter
    words = hash_words(position, seeds[..., 0], seeds[..., 1])
    return is_kept(words, jnp.asarray(column // quarter), rate_threshold(rate))


def drop_matrices(x: jax.Array, seeds: jax.Array | None, rate: float) -> jax.Array:
    """Inverted dropout on the matrices of an array [*matrices, T, J] under seeds [*matrices, 2]; None drops nothing."""
    return x if seeds is None or rate_threshold(rate) == 0 else _drop(x, seeds, rate)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _drop(x: jax.Array, seeds: jax.Array, rate: float) -> jax.Array:
    rows, columns = x.shape[-2:]
    return jnp.where(keep_mask(seeds, rows, columns, rate), x * kept_scale(rate), 0).astype(x.dtype)


# What is dropped of the input is dropped of its gradient.
_drop.defvjp(lambda x, seeds, rate: (_drop(x, seeds, rate), seeds),
             lambda rate, seeds, gradient: (_drop(gradient, seeds, rate), None))


def drop(x: jax.Array, seed: jax.Array | None, rate: float) -> jax.Array:
    """Inverted dropout on an array of two axes or more under a seed [2]; None drops nothing."""
    return x if seed is None else drop_matrices(x, split_seed(seed, x.shape[:-2]), rate)
