"""What every way of computing attention is told. Each names its context "context", which recomputation may keep."""
from __future__ import annotations

from typing import NamedTuple

import jax


class AttentionCall(NamedTuple):
    """The arguments of one attention: B rows, S positions, N heads of width H, D = N H.

    Attributes:
      query, key, value: [B, S, D], the heads side by side.
      segments: [B, S] integers, 0 for padding.
      seeds: of the dropout, uint32 [B, N, 2]; None for none.
    """
    query: jax.Array
    key: jax.Array
    value: jax.Array
    segments: jax.Array
    seeds: jax.Array | None


class AttentionKind(NamedTuple):
    """What is the same for every call of a network.

    Attributes:
      head_width: H.
      dropout: rate on the attention probabilities.
      clamp: clip scores to +-10,000 before masking.
    """
    head_width: int
    dropout: float = 0.0
    clamp: bool = False
