"""The stack of a model's layers, and the positions and dropout seeds that it is called with."""
from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32, Integer, UInt32

from spanbert_jax.model.compute import REMAT_POLICIES, ComputeConfig
from spanbert_jax.model.config import ModelConfig
from spanbert_jax.model.dropout import seed_from, split_seed


def stack(layer: type[nn.Module], config: ModelConfig, compute: ComputeConfig) -> nn.Module:
    """L layers in a row, scanned or unrolled.

    Args:
      layer: module (config, compute) called as (x, shared inputs, seed) that returns x and a further output or None.

    Returns:
      A module called as (x, shared inputs, seeds of the layers [L, 2] or None). Parameters and further outputs of the
      layers are stacked on a leading axis, whether the layers are scanned or unrolled, so checkpoints serve both.
    """
    if compute.remat != "none":
        # Inside a loop nothing can be merged with its recomputation, so preventing that would only cost time.
        layer = nn.remat(layer, policy=REMAT_POLICIES[compute.remat], prevent_cse=compute.layers == "unrolled")
    return nn.scan(
        layer, length=config.num_layers, variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True}, in_axes=(nn.broadcast, 0),
        unroll=config.num_layers if compute.layers == "unrolled" else 1,
        metadata_params={nn.PARTITION_NAME: "layers"})(config, compute)


def layer_seeds(config: ModelConfig,
                key: jax.Array | None) -> tuple[UInt32[Array, " 2"] | None, UInt32[Array, "L 2"] | None]:
    """Dropout seeds of the embeddings and of each layer, from a key; None and None without a key."""
    if key is None:
        return None, None
    *seeds, seed = split_seed(seed_from(key), (config.num_layers + 1,))
    return seed, jnp.stack(seeds)


def position_ids(segments: Integer[Array, "B S"]) -> Int32[Array, "B S"]:
    """Positions counted from the start of each segment; padding continues those of the last segment."""
    index = jnp.broadcast_to(jnp.arange(segments.shape[1], dtype=jnp.int32), segments.shape)
    first = jnp.pad((jnp.diff(segments) != 0) & (segments[:, 1:] != 0), ((0, 0), (1, 0)), constant_values=True)
    return index - jax.lax.cummax(jnp.where(first, index, 0), axis=1)
