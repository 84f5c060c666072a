"""The heads. Those that predict pieces share the encoder's piece embeddings as output distribution."""
from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from spanbert_jax.model.config import ModelConfig
from spanbert_jax.model.functions import gelu
from spanbert_jax.model.layers import Dense, Embed, LayerNorm

# The logit of rows that pad the vocabulary: never drawn, never in the way of the softmax.
PADDING_LOGIT = -1e9


def gather(hidden: jax.Array, positions: jax.Array) -> jax.Array:
    """The states at given positions. [B, S, D], [B, M] -> [B, M, D]."""
    return jnp.take_along_axis(hidden, positions[..., None], axis=1)


class TiedOutput(nn.Module):
    """Logits over the padded vocabulary from the piece embeddings and a bias. [B, M, D] -> [B, M, V] float32."""
    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array, pieces: Embed) -> jax.Array:
        config = self.config
        init = nn.with_logical_partitioning(nn.initializers.zeros_init(), ("vocab",))
        bias = self.param("bias", init, (config.padded_vocab_size,), jnp.float32)
        logits = nn.with_logical_constraint(pieces.logits(x) + bias, ("batch", None, "vocab"))
        return jnp.where(jnp.arange(config.padded_vocab_size) < config.vocab_size, logits, PADDING_LOGIT)


class MaskedTokenHead(nn.Module):
    """Predicts a piece from its own position's state. [B, M, D] -> [B, M, V]."""
    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array, pieces: Embed) -> jax.Array:
        x = gelu(Dense(self.config, self.config.width, ("embed", None), activated=True, name="transform")(x))
        return TiedOutput(self.config, name="output")(LayerNorm(self.config, name="norm")(x), pieces)


class BoundaryHead(nn.Module):
    """Predicts a piece from the states at its span's two boundaries and its place in the span.

    Two layers with GELU and layer norm over [left; right; place], section 3.2 of the paper. It shares no weight with
    the masked-token head but the piece embeddings.
    """
    config: ModelConfig

    @nn.compact
    def __call__(self, left: jax.Array, right: jax.Array, place: jax.Array, pieces: Embed) -> jax.Array:
        """Logits [B, M, V] from states [B, M, D] at the left and right boundary and places [B, M].

        Places past the table, which are no targets, are read as its last: out of bounds the look-up gives NaN.
        """
        config = self.config
        places = Embed(config, config.boundary_positions, config.boundary_features, (None, None), name="place")
        x = jnp.concatenate([left, right, places(jnp.minimum(place, config.boundary_positions - 1))], axis=-1)
        first = Dense(config, config.width, (None, "embed"), activated=True, name="first")
        second = Dense(config, config.width, ("embed", None), activated=True, name="second")
        x = LayerNorm(config, name="first_norm")(gelu(first(x)))
        x = LayerNorm(config, name="second_norm")(gelu(second(x)))
        return TiedOutput(config, name="output")(x, pieces)


def pooler(config: ModelConfig) -> Dense:
    """BERT's pooler, from the first position's state to what `pool` squashes; [..., D] -> [..., D]."""
    return Dense(config, config.width, ("embed", None))


def pool(layer: Dense, hidden: jax.Array, first: jax.Array | None = None) -> jax.Array:
    """One vector a row, from its first position through the pooler. [B, S, D] -> [B, D].

    With `first` [B, K], where the texts of a row begin, one vector a text: [B, K, D].
    """
    return jnp.tanh(layer(hidden[:, 0] if first is None else gather(hidden, first)))


def classifier(config: ModelConfig, classes: int) -> Dense:
    """Logits of classes. [..., D] -> [..., classes], in the compute dtype."""
    return Dense(config, classes, ("embed", None))
