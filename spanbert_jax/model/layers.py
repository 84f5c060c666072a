"""Modules that every architecture is made of, with BERT's initialization and logical names on every parameter axis.

Each takes the config of the model and how it is computed.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Integer, UInt32

from spanbert_jax.model.compute import ComputeConfig
from spanbert_jax.model.config import ModelConfig
from spanbert_jax.model.dropout import drop
from spanbert_jax.model.functions import add_bias, normalize
from spanbert_jax.model.products import look_up, per_group_gradients, project, tied_logits


class Embed(nn.Module):
    """An embedding [rows, features], initialized from N(0, initializer_range), with logical axis names `axes`."""
    config: ModelConfig
    compute: ComputeConfig
    rows: int
    features: int
    axes: tuple[str | None, str | None]

    def setup(self) -> None:
        init = nn.with_logical_partitioning(nn.initializers.normal(self.config.initializer_range), self.axes)
        self.embedding = self.param("embedding", init, (self.rows, self.features))
        self.group_gradients = per_group_gradients(self.embedding, jnp.dtype(self.compute.gradient_dtype))

    def __call__(self, ids: Integer[Array, "..."]) -> Float[Array, "... features"]:
        """Looks up rows by id, in the activation dtype."""
        return look_up(self.embedding, self.group_gradients, ids, self.compute.activation_dtype)

    def logits(self, x: Float[Array, "B M features"]) -> Float[Array, "B M rows"]:
        """Dot products with every row, in float32."""
        return tied_logits(x, self.embedding, self.group_gradients)


class Dense(nn.Module):
    """A projection with bias; kernel [in, features] from N(0, initializer_range), with logical axis names `axes`.

    Attributes:
      activated: whether an activation follows; see `functions.add_bias`.
    """
    config: ModelConfig
    compute: ComputeConfig
    features: int
    axes: tuple[str | None, str | None]
    activated: bool = False

    @nn.compact
    def parameters(self, width: int) -> tuple[Float[Array, "width features"], Float[Array, " features"]]:
        """The kernel and the bias for inputs of a width."""
        normal, zeros = nn.initializers.normal(self.config.initializer_range), nn.initializers.zeros_init()
        kernel: Any = self.param("kernel", nn.with_logical_partitioning(normal, self.axes), (width, self.features))
        bias: Any = self.param("bias", nn.with_logical_partitioning(zeros, self.axes[1:]), (self.features,))
        return kernel, bias

    def __call__(self, x: Float[Array, "... width"]) -> Float[Array, "... features"]:
        """The projection, in the activation dtype."""
        return dense(self.compute, x, *self.parameters(x.shape[-1]), self.activated)


def dense(compute: ComputeConfig, x: Float[Array, "... width"], kernel: Float[Array, "width features"],
          bias: Float[Array, " features"], activated: bool = False) -> Float[Array, "... features"]:
    """The projection of `Dense` with given parameters."""
    y = project(x.astype(compute.activation_dtype), kernel, jnp.dtype(compute.gradient_dtype))
    return add_bias(y, bias.astype(y.dtype), activated)


class LayerNorm(nn.Module):
    """Layer norm over the last axis, computed in float32."""
    config: ModelConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """The normalized input, in the activation dtype."""
        def vector(name: str, init: nn.initializers.Initializer) -> Any:
            return self.param(name, nn.with_logical_partitioning(init, ("norm",)), (x.shape[-1],))

        scale, bias = vector("scale", nn.initializers.ones_init()), vector("bias", nn.initializers.zeros_init())
        return normalize(x.astype(self.compute.activation_dtype), scale, bias, self.config.layer_norm_epsilon)


class Embeddings(nn.Module):
    """The sum of token, position and token type embeddings, with dropout.

    Attributes:
      normalized: whether a layer norm follows the sum.
    """
    config: ModelConfig
    compute: ComputeConfig
    normalized: bool = True

    def setup(self) -> None:
        config, compute = self.config, self.compute
        self.token = Embed(config, compute, config.padded_vocab_size, config.width, ("vocab", "embed"))
        self.position = Embed(config, compute, config.max_positions, config.width, (None, "embed"))
        if config.token_types:
            self.token_type = Embed(config, compute, config.token_types, config.width, (None, "embed"))
        if self.normalized:
            self.norm = LayerNorm(config, compute)

    def __call__(self, tokens: Integer[Array, "B S"], positions: Integer[Array, "B S"],
                 token_types: Integer[Array, "B S"], seed: UInt32[Array, " 2"] | None) -> Float[Array, "B S D"]:
        """Embeds tokens. `seed` is the dropout seed; None without dropout."""
        x = self.token(tokens) + self.position(positions)
        if self.config.token_types:
            x += self.token_type(token_types)
        if self.normalized:
            x = self.norm(x)
        return nn.with_logical_constraint(drop(x, seed, self.config.dropout), ("batch", "sequence", "width"))


def feed_forward(config: ModelConfig, compute: ComputeConfig, x: Float[Array, "B S D"],
                 activation: Callable[[jax.Array], jax.Array]) -> Float[Array, "B S D"]:
    """Two projections with an activation between them, [B, S, D] -> [B, S, F] -> [B, S, D].

    Call it in the `nn.compact` method of a layer, which owns the parameters feed_forward_in and feed_forward_out.
    """
    inner = Dense(config, compute, config.feed_forward, ("embed", "mlp"), activated=True, name="feed_forward_in")(x)
    inner = nn.with_logical_constraint(checkpoint_name(inner, "feed_forward"), ("batch", "sequence", "mlp"))
    outer = Dense(config, compute, config.width, ("mlp", "embed"), name="feed_forward_out")(activation(inner))
    return checkpoint_name(outer, "layer_output")
