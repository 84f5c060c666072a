"""The parts that every module is made of, with BERT's initialisation and a logical name on every axis."""
from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from spanbert_jax.model.config import ModelConfig
from spanbert_jax.model.functions import add_bias, normalize
from spanbert_jax.model.products import look_up, per_group_gradients, project, tied_logits


class Embed(nn.Module):
    """An embedding table [rows, features] drawn from N(0, initializer_range) with logical names `axes`."""
    config: ModelConfig
    rows: int
    features: int
    axes: tuple[str | None, str | None]

    def setup(self):
        init = nn.with_logical_partitioning(nn.initializers.normal(self.config.initializer_range), self.axes)
        self.embedding = self.param("embedding", init, (self.rows, self.features))
        self.shares = per_group_gradients(self.embedding, jnp.dtype(self.config.gradient_dtype))

    def __call__(self, ids: jax.Array) -> jax.Array:
        """[...] integers -> [..., features], in the compute dtype."""
        return look_up(self.embedding, self.shares, ids, self.config.compute_dtype)

    def logits(self, x: jax.Array) -> jax.Array:
        """Products with every row. [B, M, features] -> [B, M, rows] float32."""
        return tied_logits(x, self.embedding, self.shares)


class Dense(nn.Module):
    """A projection with bias; kernel [in, features] drawn from N(0, initializer_range) with logical names `axes`.

    Attributes:
      activated: whether an activation follows, as `functions.add_bias` wants to know.
    """
    config: ModelConfig
    features: int
    axes: tuple[str | None, str | None]
    activated: bool = False

    @nn.compact
    def parameters(self, width: int) -> tuple[jax.Array, jax.Array]:
        """The kernel [width, features] and the bias [features], for input so wide."""
        normal, zeros = nn.initializers.normal(self.config.initializer_range), nn.initializers.zeros_init()
        return (self.param("kernel", nn.with_logical_partitioning(normal, self.axes), (width, self.features)),
                self.param("bias", nn.with_logical_partitioning(zeros, self.axes[1:]), (self.features,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., in] -> [..., features], in the compute dtype."""
        return dense(self.config, x, *self.parameters(x.shape[-1]), self.activated)


def dense(config: ModelConfig, x: jax.Array, kernel: jax.Array, bias: jax.Array, activated: bool = False) -> jax.Array:
    """What `Dense` computes, with parameters of any origin. [..., in], [in, out], [out] -> [..., out]."""
    y = project(x.astype(config.compute_dtype), kernel, jnp.dtype(config.gradient_dtype))
    return add_bias(y, bias.astype(y.dtype), activated)


class LayerNorm(nn.Module):
    """Layer norm over the last axis, in float32 whatever the compute dtype."""
    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D] -> [..., D], in the compute dtype."""
        def vector(name: str, init: nn.initializers.Initializer) -> jax.Array:
            return self.param(name, nn.with_logical_partitioning(init, ("norm",)), (x.shape[-1],))

        scale, bias = vector("scale", nn.initializers.ones_init()), vector("bias", nn.initializers.zeros_init())
        return normalize(x.astype(self.config.compute_dtype), scale, bias, self.config.layer_norm_epsilon)
