"""Merged spans: the maximal masked runs of a block, and their boundaries."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32


class Spans(NamedTuple):
    """The merged span of each masked position; undefined at other positions."""
    start: Int32[Array, " S"]   # first position of the span
    length: Int32[Array, " S"]  # tokens
    left: Int32[Array, " S"]    # position of the left boundary
    right: Int32[Array, " S"]   # position of the right boundary
    bounded: Bool[Array, " S"]  # whether both boundaries exist; otherwise left and right are the ends of the span


def merge(masked: Bool[Array, " S"], block: Int32[Array, " S"], maskable: Bool[Array, " S"], endpoints: str) -> Spans:
    """Merges spans that overlap or touch into maximal masked runs, as the reference does.

    Args:
      masked: masked positions.
      block: index of the block of each position; a run ends with its block.
      maskable: False at special tokens and padding.
      endpoints: "external": the boundaries are the neighbours of the run, which must be maskable tokens of its block. A
        run at the edge of its block has none, although [CLS] or [SEP] is next to it, as in the reference. "internal":
        the boundaries are the first and the last token of the run.
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
    # A maximal run has no masked neighbour, so its maskable neighbours are unmasked.
    bounded = (same_as_previous & _previous(maskable))[start] & (same_as_next & _next(maskable))[end]
    left, right = jnp.where(bounded, start - 1, start), jnp.where(bounded, end + 1, end)
    return Spans(start, end - start + 1, left, right, bounded)


def _previous(x: Bool[Array, " S"]) -> Bool[Array, " S"]:
    return jnp.pad(x[:-1], (1, 0))


def _next(x: Bool[Array, " S"]) -> Bool[Array, " S"]:
    return jnp.pad(x[1:], (0, 1))
