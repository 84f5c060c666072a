"""The parts that every module is made of, with BERT's initialisation and a logical name on every axis."""
from __future__ import annotations

import flax.linen as nn
import jax

from spanbert_jax.model.config import ModelConfig


def table(config: ModelConfig, rows: int, features: int, axes: tuple[str | None, ...],
          name: str | None = None) -> nn.Embed:
    """An embedding table [rows, features], drawn from N(0, initializer_range)."""
    init = nn.with_logical_partitioning(nn.initializers.normal(config.initializer_range), axes)
    return nn.Embed(rows, features, dtype=config.compute_dtype, embedding_init=init, name=name)


def dense(config: ModelConfig, features: int, axes: tuple[str | None, str | None],
          name: str | None = None) -> nn.Dense:
    """A projection with bias; kernel [in, features] drawn from N(0, initializer_range) with logical names `axes`."""
    kernel = nn.with_logical_partitioning(nn.initializers.normal(config.initializer_range), axes)
    bias = nn.with_logical_partitioning(nn.initializers.zeros_init(), axes[1:])
    return nn.Dense(features, dtype=config.compute_dtype, kernel_init=kernel, bias_init=bias, name=name)


def layer_norm(config: ModelConfig, name: str | None = None) -> nn.LayerNorm:
    """Layer norm over the last axis; flax computes its mean and variance in float32 whatever the compute dtype."""
    return nn.LayerNorm(
        epsilon=config.layer_norm_epsilon, dtype=config.compute_dtype,
        # The fast form, E[x^2] - E[x]^2, loses digits that parity with the reference needs.
        use_fast_variance=False,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones_init(), ("norm",)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros_init(), ("norm",)), name=name)


def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU, by the error function, as in BERT."""
    return jax.nn.gelu(x, approximate=False)
