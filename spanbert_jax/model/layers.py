"""The parts that every module is made of, with BERT's initialisation and a logical name on every axis."""
from __future__ import annotations

import flax.linen as nn
import jax

from spanbert_jax.model.config import ModelConfig
from spanbert_jax.model.functions import add_bias, normalize


def table(config: ModelConfig, rows: int, features: int, axes: tuple[str | None, ...],
          name: str | None = None) -> nn.Embed:
    """An embedding table [rows, features], drawn from N(0, initializer_range)."""
    init = nn.with_logical_partitioning(nn.initializers.normal(config.initializer_range), axes)
    return nn.Embed(rows, features, dtype=config.compute_dtype, embedding_init=init, name=name)


class Dense(nn.Module):
    """A projection with bias; kernel [in, features] drawn from N(0, initializer_range) with logical names `axes`."""
    config: ModelConfig
    features: int
    axes: tuple[str | None, str | None]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., in] -> [..., features], in the compute dtype."""
        dtype, normal = self.config.compute_dtype, nn.initializers.normal(self.config.initializer_range)
        kernel = self.param("kernel", nn.with_logical_partitioning(normal, self.axes), (x.shape[-1], self.features))
        bias = self.param("bias", nn.with_logical_partitioning(nn.initializers.zeros_init(), self.axes[1:]),
                          (self.features,))
        return add_bias(x.astype(dtype) @ kernel.astype(dtype), bias.astype(dtype))


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
