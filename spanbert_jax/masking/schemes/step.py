"""Input and output of a masking scheme."""
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt32


class MaskingStep(NamedTuple):
    """One step of masking one block of one row of S positions.

    A priority is a random order: int32, non-negative, independent and uniform. Both are drawn once per row, which is
    enough. The reference draws an anchor uniformly, and draws again while the anchor is masked. Visiting the tokens in
    one random order and skipping the masked ones has the same distribution, since a sequence of i.i.d. draws without
    its repetitions is a uniformly random order, and a repeated draw is a rejected one. A rejected attempt has no other
    effect, so span lengths are independent of the rejections.
    """
    block: Bool[Array, " S"]  # maskable tokens of the block
    unmasked: Bool[Array, " S"]  # those that are not masked yet
    words: Int[Array, " S"]  # index of the word, ascending in the row
    units: Int[Array, " S"]  # index of the annotated unit, ascending in the row; 0 outside units
    token_priority: Int[Array, " S"]  # a random order of tokens
    unit_priority: Int[Array, " S"]  # a random order of units: the same value at all tokens of a unit
    remaining: Int[Array, ""]  # tokens of the budget that are left
    bits: UInt32[Array, "2"]  # fresh random bits of this step


Propose = Callable[[MaskingStep], Bool[Array, " S"]]


class Scheme(NamedTuple):
    """A masking scheme."""
    make: Callable[[Any], Propose]  # makes `propose` from the `MaskingSettings`
    forms_spans: bool = True  # False for a scheme whose tokens are replaced one by one and have no boundary targets


def first(priority: Int[Array, " S"], among: Bool[Array, " S"]) -> Int[Array, ""]:
    """Position of the token with the highest priority among the marked ones; the leftmost of equals."""
    return jnp.argmax(jnp.where(among, priority, -1)).astype(jnp.int32)
