"""Merged spans: the maximal masked runs inside a block, and what lies at their ends."""
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Spans(NamedTuple):
    """The merged span at each masked position of a row; arrays [S], without meaning at other positions."""
    start: jax.Array    # int32, its first position
    length: jax.Array   # int32
    left: jax.Array     # int32, position that predicts it from the left
    right: jax.Array    # int32, and from the right
    bounded: jax.Array  # bool, whether both exist; if not, left and right are the span's ends


def merge(masked: jax.Array, block: jax.Array, maskable: jax.Array, endpoints: str) -> Spans:
    """Merges spans that overlap or touch, as the reference does: all that follows works on maximal masked runs.

    Args:
        masked: bool [S].
        block: int32 [S], number of the block each position belongs to; runs end with their block.
        maskable: bool [S], false at special tokens and padding.
        endpoints: "external": the neighbours of the run, which must lie in its block and not be special (a run at the
            block's edge has none, though [CLS] or [SEP] stand there; the reference likewise); "internal": its ends.
    """
    length = masked.shape[0]
    position = jnp.arange(length, dtype=jnp.int32)
    same_as_previous = jnp.pad(block[1:] == block[:-1], (1, 0))
    same_as_next = jnp.pad(block[1:] == block[:-1], (0, 1))
    starts = masked & ~(same_as_previous & _previous(masked))
    ends = masked & ~(same_as_next & _next(masked))
    start = jax.lax.cummax(jnp.where(starts, position, 0))
    end = jax.lax.cummin(jnp.where(ends, position, length - 1), reverse=True)
    if endpoints == "internal":
        return Spans(start, end - start + 1, start, end, masked)
    # A maximal run has no masked neighbour, so maskable neighbours are unmasked ones.
    bounded = (same_as_previous & _previous(maskable))[start] & (same_as_next & _next(maskable))[end]
    left, right = jnp.where(bounded, start - 1, start), jnp.where(bounded, end + 1, end)
    return Spans(start, end - start + 1, left, right, bounded)


def _previous(x: jax.Array) -> jax.Array:
    return jnp.pad(x[:-1], (1, 0))


def _next(x: jax.Array) -> jax.Array:
    return jnp.pad(x[1:], (0, 1))
