"""What every way of computing attention is told. Each names its context "context", which recomputation may keep."""
from __future__ import annotations

from typing import NamedTuple

import jax


class AttentionCall(NamedTuple):
    """The arguments of one attention: B rows, S positions, N heads of width H, D = N H.

    Attributes:
      projections: queries, keys and values [B, S, D], the heads side by side; one array of all of them, [B, S, 3 D],
        where the way of computing has a function `join`, which makes it.
      segments: [B, S] integers, 0 for padding.
      seeds: of the dropout, uint32 [B, N, 2]; None for none.
    """
    projections: tuple[jax.Array, ...]
    segments: jax.Array
    seeds: jax.Array | None

    def heads(self, width: int) -> list[jax.Array]:
        """Queries, keys and values with each head by itself, [B, S, N, H], of three arrays."""
        return [flat.reshape(*flat.shape[:2], -1, width) for flat in self.projections]


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
