"""Dropout whose mask is a function of a seed and of the element's index, the same on every device and in every kernel.

The index is hashed with a few integer operations, which take almost no time beside reading and writing the array, while
threefry more than doubles the time. No mask is kept: the backward pass draws it again. Any part of a mask can be drawn
alone, so a kernel that never holds the whole array drops the same elements as plain code, and so does every mesh.
"""
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, UInt32

ELEMENTS_PER_WORD = 4  # elements that one 32-bit word decides, by eight bits each
Words = UInt32[Array, "..."] | UInt32[np.ndarray, "..."]
# Odd multipliers from Wellons's search for low-bias 32-bit hashes (hash-prospector, 2018 and later).
_FIRST, _SECOND = np.uint32(0x21F0AAAD), np.uint32(0x735A2D97)


def rate_threshold(rate: float) -> int:
    """The applied rate in 256ths: 0.1 becomes 26/256 = 0.1016."""
    return min(round(rate * 256), 255)


def kept_scale(rate: float) -> float:
    """The factor on kept elements that preserves the expectation: 1 / (exact share of kept elements)."""
    return 256 / (256 - rate_threshold(rate))


def hash_words(position: Words, first: Words, second: Words) -> UInt32[Array, "..."]:
    """A random word for each position, under a seed of two words; all are broadcast against each other."""
    x: Any = position + first
    x = (x ^ (x >> 16)) * _FIRST
    x = (x ^ (x >> 15) ^ second) * _SECOND
    return x ^ (x >> 15)


def is_kept(words: UInt32[Array, "..."], part: Words | Integer[Array, "..."] | int,
            threshold: int) -> Bool[Array, "..."]:
    """Whether byte number `part` of a word, from the top, keeps its element at a rate in 256ths."""
    # The byte is shifted to the top and compared as a signed number, in two operations.
    drawn = (words << jnp.asarray(8 * part, jnp.uint32)).astype(jnp.int32)
    return drawn >= np.int32((threshold << 24) - 2 ** 31)


def seed_from(key: jax.Array) -> UInt32[Array, " 2"]:
    """The seed of a typed key."""
    return jax.random.bits(key, (2,), jnp.uint32)


def split_seed(seed: UInt32[Array, " 2"], shape: tuple[int, ...]) -> UInt32[Array, "*shape 2"]:
    """Splits a seed into seeds for each element of an array of a shape."""
    index = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(math.prod(shape[axis + 1:]))
    first, second = seed
    inner = hash_words(index, first, second)
    return jnp.stack([hash_words(inner, second, first), hash_words(inner, ~second, ~first)], axis=-1)


def keep_mask(seeds: UInt32[Array, "*matrices 2"], rows: int, columns: int,
              rate: float) -> Bool[Array, "*matrices T J"]:
    """Booleans, True where an element is kept, for matrices of T rows and J columns.

    Element (t, j) of a matrix is decided by byte j // Q, from the top, of the word of position t Q + j mod Q; Q is
    J / 4 rounded up. It is kept if that byte, as a signed number, is no less than `rate_threshold` - 128.

    Args: seeds: as from `split_seed`. A first word larger by 1 gives the same mask, shifted by one position.
    """
    seeds = seeds[..., None, None, :]
    quarter = -(-columns // ELEMENTS_PER_WORD)
    column = np.arange(columns, dtype=np.uint32)
    position = jax.lax.broadcasted_iota(jnp.uint32, (rows, columns), 0) * np.uint32(quarter) + column % quarter
    words = hash_words(position, seeds[..., 0], seeds[..., 1])
    return is_kept(words, jnp.asarray(column // quarter), rate_threshold(rate))


def drop_matrices(x: Float[Array, "*matrices T J"], seeds: UInt32[Array, "*matrices 2"] | None,
                  rate: float) -> Float[Array, "*matrices T J"]:
    """Inverted dropout on matrices; None drops nothing."""
    return x if seeds is None or rate_threshold(rate) == 0 else _drop(x, seeds, rate)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _drop(x: jax.Array, seeds: jax.Array, rate: float) -> jax.Array:
    rows, columns = x.shape[-2:]
    return jnp.where(keep_mask(seeds, rows, columns, rate), x * kept_scale(rate), 0).astype(x.dtype)


# The gradient is dropped with the same mask.
_drop.defvjp(lambda x, seeds, rate: (_drop(x, seeds, rate), seeds),
             lambda rate, seeds, gradient: (_drop(gradient, seeds, rate), None))


def drop(x: Float[Array, "*matrices T J"], seed: UInt32[Array, " 2"] | None,
         rate: float) -> Float[Array, "*matrices T J"]:
    """Inverted dropout on an array of two axes or more; None drops nothing."""
    return x if seed is None else drop_matrices(x, split_seed(seed, x.shape[:-2]), rate)
