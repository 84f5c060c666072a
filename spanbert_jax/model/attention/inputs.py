"""Inputs and settings of every attention backend.

Each backend names its output "context" (`checkpoint_name`), so that recomputation may keep it.
"""
from __future__ import annotations

from typing import NamedTuple

import jax


class AttentionInputs(NamedTuple):
    """Arrays of one attention: B rows, S positions, N heads of width H, D = N H.

    Attributes:
      projections: queries, keys and values [B, S, D], heads side by side; or one array [B, S, 3 D] made by the
        backend's `join`, if it has one.
      segments: [B, S] integers, 0 for padding.
      seeds: dropout seeds, uint32 [B, N, 2]; None without dropout.
    """
    projections: tuple[jax.Array, ...]
    segments: jax.Array
    seeds: jax.Array | None

    def split_heads(self, head_width: int) -> list[jax.Array]:
        """Queries, keys and values [B, S, N, H], from three arrays [B, S, D]."""
        return [flat.reshape(*flat.shape[:2], -1, head_width) for flat in self.projections]


class AttentionSpec(NamedTuple):
    """Settings of an attention that are the same in every call.

    Attributes:
      head_width: H.
      dropout: rate on the attention probabilities.
      clamp: clip scores to +-10,000 before masking.
    """
    head_width: int
    dropout: float = 0.0
    clamp: bool = False
