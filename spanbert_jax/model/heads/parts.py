"""Modules that several heads are made of."""
from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Integer

from spanbert_jax.model.config import ComputeConfig, ModelConfig
from spanbert_jax.model.layers import Dense, Embed

# The logit of rows that pad the vocabulary: zero probability.
PADDING_LOGIT = -1e9


def gather(hidden: Float[Array, "B S D"], positions: Integer[Array, "B M"]) -> Float[Array, "B M D"]:
    """The hidden states at given positions."""
    return jnp.take_along_axis(hidden, positions[..., None], axis=1)


def mask_padding(config: ModelConfig, logits: Float32[Array, "B M V"]) -> Float32[Array, "B M V"]:
    """Logits over the padded vocabulary, with `PADDING_LOGIT` for rows that are padding."""
    return jnp.where(jnp.arange(config.padded_vocab_size) < config.vocab_size, logits, PADDING_LOGIT)


class TiedOutput(nn.Module):
    """Logits over the padded vocabulary, from the token embedding and a bias of its own."""
    config: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B M D"], embedding: Embed) -> Float32[Array, "B M V"]:
        """Logits of states."""
        init = nn.with_logical_partitioning(nn.initializers.zeros_init(), ("vocab",))
        bias: Any = self.param("bias", init, (self.config.padded_vocab_size,), jnp.float32)
        logits = nn.with_logical_constraint(embedding.logits(x) + bias, ("batch", None, "vocab"))
        return mask_padding(self.config, logits)


def pool(layer: Dense, hidden: Float[Array, "B S D"],
         first: Integer[Array, "B K"] | None = None) -> Float[Array, "B *K D"]:
    """BERT's pooler: one vector for each row, from its first position, or one for each text, from the text's start.

    Args:
      layer: the pooler's projection, [..., D] -> [..., D].
      hidden: hidden states.
      first: positions where the K texts of a row start.

    Returns:
      [B, D], or [B, K, D] with `first`.
    """
    return jnp.tanh(layer(hidden[:, 0] if first is None else gather(hidden, first)))


def classifier(config: ModelConfig, compute: ComputeConfig, classes: int) -> Dense:
    """Logits of classes, [..., D] -> [..., classes], in the activation dtype."""
    return Dense(config, compute, classes, ("embed", None))
