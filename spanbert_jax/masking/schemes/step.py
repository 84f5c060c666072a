"""What a masking scheme is given and what it gives."""
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from spanbert_jax.masking.settings import MaskingSettings


class MaskingStep(NamedTuple):
    """One step of masking one block of one row; arrays are [S] over the row unless said.

    The two priorities stand for random orders: int32, non-negative, independent and uniform. They are drawn once for
    the row, and that is enough. The reference draws an anchor uniformly and draws anew while the anchor is masked;
    visiting the tokens in one random order and skipping those masked meanwhile draws from the same law, since an order
    of i.i.d. draws with repetitions removed is a uniformly random order, and a repeated draw is one that is rejected.
    Nothing else in a rejected attempt leaves a trace, so the span lengths stay independent of the rejections.
    """
    block: jax.Array           # bool, maskable tokens of the block
    unmasked: jax.Array        # bool, those of them not masked yet
    words: jax.Array           # int32, number of the word, rising through the row
    units: jax.Array           # int32, number of the annotated unit, rising through the row; 0 outside units
    token_priority: jax.Array  # a random order of tokens
    unit_priority: jax.Array   # a random order of units: the same value at all tokens of a unit
    remaining: jax.Array       # int32 [], tokens of the budget left
    bits: jax.Array            # uint32 [2], fresh random bits of this step


class Scheme(NamedTuple):
    """A registered scheme. One that forms no spans is replaced token by token and has no boundary targets."""
    make: Callable[[MaskingSettings], Callable[[MaskingStep], jax.Array]]
    forms_spans: bool = True


def first(priority: jax.Array, among: jax.Array) -> jax.Array:
    """Position, int32 [], of the token with the highest priority among those marked (ties: the leftmost)."""
    return jnp.argmax(jnp.where(among, priority, -1)).astype(jnp.int32)
