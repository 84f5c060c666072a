"""The encoder: embeddings and a stack of post-norm layers."""
from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from spanbert_jax.model.attention.self_attention import SelfAttention
from spanbert_jax.model.compute import REMAT_POLICIES
from spanbert_jax.model.config import ModelConfig
from spanbert_jax.model.dropout import drop, seed_from, split_seed
from spanbert_jax.model.functions import gelu, tanh_gelu
from spanbert_jax.model.layers import Dense, Embed, LayerNorm


def position_ids(segments: jax.Array) -> jax.Array:
    """Positions counted from the start of each segment, and on through padding. [B, S] integers -> [B, S] int32."""
    index = jnp.broadcast_to(jnp.arange(segments.shape[1], dtype=jnp.int32), segments.shape)
    first = jnp.pad((jnp.diff(segments) != 0) & (segments[:, 1:] != 0), ((0, 0), (1, 0)), constant_values=True)
    return index - jax.lax.cummax(jnp.where(first, index, 0), axis=1)


class Embeddings(nn.Module):
    """The sum of piece, position and type embeddings, normalised unless layers do it first. [B, S] -> [B, S, D]."""
    config: ModelConfig

    def setup(self):
        config = self.config
        self.token = Embed(config, config.padded_vocab_size, config.width, ("vocab", "embed"))
        self.position = Embed(config, config.max_positions, config.width, (None, "embed"))
        if config.token_types:
            self.token_type = Embed(config, config.token_types, config.width, (None, "embed"))
        if not config.norm_first:
            self.norm = LayerNorm(config)

    def __call__(self, tokens: jax.Array, positions: jax.Array, token_types: jax.Array,
                 seed: jax.Array | None) -> jax.Array:
        x = self.token(tokens) + self.position(positions)
        if self.config.token_types:
            x += self.token_type(token_types)
        if not self.config.norm_first:
            x = self.norm(x)
        return nn.with_logical_constraint(drop(x, seed, self.config.dropout), ("batch", "sequence", "width"))


def feed_forward(config: ModelConfig, x: jax.Array) -> jax.Array:
    """The two projections and the GELU in between, of the layer that calls it. [B, S, D] -> [B, S, F] -> [B, S, D]."""
    activate = gelu if config.exact_gelu else tanh_gelu
    inner = Dense(config, config.feed_forward, ("embed", "mlp"), activated=True, name="feed_forward_in")(x)
    inner = nn.with_logical_constraint(checkpoint_name(inner, "feed_forward"), ("batch", "sequence", "mlp"))
    outer = Dense(config, config.width, ("mlp", "embed"), name="feed_forward_out")(activate(inner))
    return checkpoint_name(outer, "layer_output")


class Layer(nn.Module):
    """Attention and feed-forward, each added to its input and normalised. [B, S, D] -> [B, S, D]."""
    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array, segments: jax.Array, seed: jax.Array | None) -> tuple[jax.Array, None]:
        """The next hidden states. Without a seed [2] there is no dropout."""
        config, rate = self.config, self.config.dropout
        seeds = (None, None, None) if seed is None else split_seed(seed, (3,))
        attended = SelfAttention(config, name="attention")(x, segments, seeds[0])
        attended = checkpoint_name(attended, "attention_output")
        x = LayerNorm(config, name="attention_norm")(x + drop(attended, seeds[1], rate))
        x = LayerNorm(config, name="feed_forward_norm")(x + drop(feed_forward(config, x), seeds[2], rate))
        # Kept only when somebody asks for the "intermediates" collection.
        self.sow("intermediates", "hidden", x)
        return nn.with_logical_constraint(x, ("batch", "sequence", "width")), None


def stack(layer: type[nn.Module], config: ModelConfig) -> nn.Module:
    """The layers of a network, called as (x, what all of them are told, a seed each or None).

    The parameters, and what layers give besides x, are stacked on a leading axis. That is the same whether the layers
    are scanned or unrolled, so that a checkpoint serves both.
    """
    if config.remat != "none":
        # Inside a loop nothing can be merged with its recomputation, so the guard against it would only cost.
        layer = nn.remat(layer, policy=REMAT_POLICIES[config.remat], prevent_cse=config.layers == "unrolled")
    return nn.scan(
        layer, length=config.num_layers, variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True}, in_axes=(nn.broadcast, 0),
        unroll=config.num_layers if config.layers == "unrolled" else 1,
        metadata_params={nn.PARTITION_NAME: "layers"})(config)


def layer_seeds(config: ModelConfig, key: jax.Array | None) -> tuple[jax.Array | None, jax.Array | None]:
    """Seeds of the embeddings [2] and of each layer [L, 2], from the key of a dropout; without one, no dropout."""
    if key is None:
        return None, None
    *seeds, seed = split_seed(seed_from(key), (config.num_layers + 1,))
    return seed, jnp.stack(seeds)


class Encoder(nn.Module):
    """Embeddings and L layers."""
    config: ModelConfig

    def setup(self):
        self.embeddings = Embeddings(self.config)
        self.layers = stack(Layer, self.config)

    def __call__(self, tokens: jax.Array, segments: jax.Array, token_types: jax.Array, *,
                 deterministic: bool, positions: jax.Array | None = None) -> jax.Array:
        """Hidden states of the last layer.

        Args:
          tokens: [B, S] piece ids.
          segments: [B, S], 0 for padding; attention and positions stay inside a segment. With one text a row this is
            the attention mask.
          token_types: [B, S], 0 or 1.
          deterministic: without dropout.
          positions: [B, S] of the tokens, if they are not to be counted from the start of each segment.

        Returns:
          [B, S, D] in the compute dtype.
        """
        positions = position_ids(segments) if positions is None else positions
        seed, seeds = layer_seeds(self.config, None if deterministic else self.make_rng("dropout"))
        x = self.embeddings(tokens, positions, token_types, seed)
        x, _ = self.layers(x, segments, seeds)
        return x

    def pieces(self) -> Embed:
        """The table of piece embeddings [V, D], which the heads share."""
        return self.embeddings.token
