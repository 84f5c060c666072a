"""Multi-head self-attention."""
from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from spanbert_jax.model.config import ModelConfig
from spanbert_jax.model.layers import Dropout, dense

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


class SelfAttention(nn.Module):
    """Scaled dot-product attention over N heads, with its output projection. [B, S, D] -> [B, S, D]."""
    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, deterministic: bool) -> jax.Array:
        config = self.config
        heads = (*x.shape[:2], config.num_heads, config.width // config.num_heads)

        def project(name: str) -> jax.Array:
            # [B, S, D] -> [B, S, N, H]
            flat = checkpoint_name(dense(config, config.width, ("embed", "heads"), name)(x), "projections")
            return nn.with_logical_constraint(flat.reshape(heads), ("batch", "sequence", "heads", None))

        query, key, value = project("query"), project("key"), project("value")
        scores = jnp.einsum("BTNH,BSNH->BNTS", query * heads[-1] ** -0.5, key).astype(jnp.float32)
        if config.clamp_attention:
            scores = jnp.clip(scores, -CLAMP, CLAMP)
        probabilities = jax.nn.softmax(jnp.where(mask, scores, MASKED_SCORE)).astype(x.dtype)
        probabilities = Dropout(config.attention_dropout)(probabilities, deterministic)
        context = jnp.einsum("BNTS,BSNH->BTNH", probabilities, value).reshape(x.shape)
        return dense(config, config.width, ("heads", "embed"), "output")(checkpoint_name(context, "context"))
