"""Attention as its formula says it: what all the others agree with, and what runs everywhere."""
from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from spanbert_jax.model.attention.call import AttentionCall, AttentionKind
from spanbert_jax.model.dropout import drop_matrices

# Low enough that the softmax gives exactly zero in float32, as the reference's added -10,000 does.
MASKED_SCORE = -1e9
CLAMP = 1e4


def attention_mask(segments: jax.Array) -> jax.Array:
    """Which positions see which: those of their own segment.

    Padding (segment 0) is seen by nobody. What padding itself computes is never used; it looks at every real token, as
    in the reference, so that no softmax is over nothing.

    Args:
      segments: [B, S] integers, 0 for padding.

    Returns:
      [B, 1, S, S] booleans, True where the query (third axis) sees the key (last axis).
    """
    query, key = segments[:, None, :, None], segments[:, None, None, :]
    return (key != 0) & ((query == key) | (query == 0))


def attend(call: AttentionCall, kind: AttentionKind) -> jax.Array:
    """Scaled dot-product attention, softmax in float32. Returns the context [B, S, D]."""
    query, key, value = call.heads(kind.head_width)
    scores = jnp.einsum("BTNH,BSNH->BNTS", query * kind.head_width ** -0.5, key).astype(jnp.float32)
    if kind.clamp:
        scores = jnp.clip(scores, -CLAMP, CLAMP)
    scores = jnp.where(attention_mask(call.segments), scores, MASKED_SCORE)
    probabilities = drop_matrices(jax.nn.softmax(scores).astype(query.dtype), call.seeds, kind.dropout)
    context = jnp.einsum("BNTS,BSNH->BTNH", probabilities, value)
    return checkpoint_name(context.reshape(*query.shape[:2], -1), "context")
