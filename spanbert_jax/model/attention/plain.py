"""Attention as its formula says it: what all the others agree with, and what runs everywhere."""
from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from spanbert_jax.model.attention.call import AttentionCall, AttentionKind
from spanbert_jax.model.dropout import drop_matrices

# Low enough that the softmax gives exactly zero in float32, as the reference's added -10,000 does.
MASKED_SCORE = -1e9
CLAMP = 1e4


def attention_mask(queries: jax.Array, keys: jax.Array) -> jax.Array:
    """Which positions see which: those of their own segment.

    Padding (segment 0) is seen by nobody. What padding itself computes is never used; it looks at every real token, as
    in the reference, so that no softmax is over nothing.

    Args:
      queries, keys: the segments of both, [B, T] and [B, S] integers, 0 for padding.

    Returns:
      [B, 1, T, S] booleans, True where the query sees the key.
    """
    query, key = queries[:, None, :, None], keys[:, None, None, :]
    return (key != 0) & ((query == key) | (query == 0))


def attend(call: AttentionCall, kind: AttentionKind) -> jax.Array:
    """Scaled dot-product attention, softmax in float32. Returns the context [B, S, D]."""
    return dot_product_attention(call.heads(kind.head_width), attention_mask(call.segments, call.segments), call.seeds, kind)


def dot_product_attention(projections: Sequence[jax.Array], visible: jax.Array, seeds: jax.Array | None,
          kind: AttentionKind) -> jax.Array:
    """The context [B, T, D] of queries [B, T, N, H] over keys and values [B, S, N, H].

    Args:
      visible: booleans that broadcast to [B, N, T, S].
      seeds: of the dropout, uint32 [B, N, 2]; None for none.
    """
    query, key, value = projections
    scores = jnp.einsum("BTNH,BSNH->BNTS", query * kind.head_width ** -0.5, key).astype(jnp.float32)
    if kind.clamp:
        scores = jnp.clip(scores, -CLAMP, CLAMP)
    scores = jnp.where(visible, scores, MASKED_SCORE)
    probabilities = drop_matrices(jax.nn.softmax(scores).astype(query.dtype), seeds, kind.dropout)
    context = jnp.einsum("BNTS,BSNH->BTNH", probabilities, value)
    return checkpoint_name(context.reshape(*query.shape[:2], -1), "context")
