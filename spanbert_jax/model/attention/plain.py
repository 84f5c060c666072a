"""Attention by its formula, on every platform. It defines the result of the other backends."""
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from spanbert_jax.model.attention import AttentionBackend, AttentionInputs, AttentionSpec
from spanbert_jax.model.dropout import drop_matrices

MASKED_SCORE = -1e9  # low enough that the softmax is exactly zero in float32, as with the reference's added -10,000
CLAMP = 1e4


def attention_mask(queries: jax.Array, keys: jax.Array) -> jax.Array:
    """Which queries attend to which keys: those of their own segment.

    No token attends to padding (segment 0). Padding attends to every token, as in the reference, so that no softmax is
    empty; its outputs are never used.

    Returns booleans [B, 1, T, S] from the segments of queries [B, T] and keys [B, S], 0 for padding.
    """
    query, key = queries[:, None, :, None], keys[:, None, None, :]
    return (key != 0) & ((query == key) | (query == 0))


def window_mask(length: int, window: int) -> jax.Array:
    """Booleans [T, S], T = S = `length`: True at most `window // 2` positions from the diagonal."""
    position = jnp.arange(length)
    return jnp.abs(position[:, None] - position) <= window // 2


def attend(inputs: AttentionInputs, spec: AttentionSpec) -> jax.Array:
    """Self-attention inside segments and the window, softmax in float32. Returns the context [B, S, D]."""
    mask = attention_mask(inputs.segments, inputs.segments)
    if spec.window:
        mask &= window_mask(mask.shape[-1], spec.window)
    return dot_product_attention(inputs.split_heads(spec.head_width), mask, inputs.seeds, spec)


def dot_product_attention(projections: Sequence[jax.Array], mask: jax.Array, seeds: jax.Array | None,
                          spec: AttentionSpec) -> jax.Array:
    """Scaled dot-product attention with dropout on the probabilities. Returns the context [B, T, D].

    Args:
      projections: queries [B, T, N, H], keys and values [B, S, N, H].
      mask: booleans that broadcast to [B, N, T, S].
      seeds: dropout seeds, uint32 [B, N, 2]; None without dropout.
    """
    query, key, value = projections
    scores = jnp.einsum("BTNH,BSNH->BNTS", query * spec.head_width ** -0.5, key).astype(jnp.float32)
    if spec.clamp:
        scores = jnp.clip(scores, -CLAMP, CLAMP)
    scores = jnp.where(mask, scores, MASKED_SCORE)
    probabilities = drop_matrices(jax.nn.softmax(scores).astype(query.dtype), seeds, spec.dropout)
    context = jnp.einsum("BNTS,BSNH->BTNH", probabilities, value)
    return checkpoint_name(context.reshape(*query.shape[:2], -1), "context")


BACKEND = AttentionBackend("plain", attend)
