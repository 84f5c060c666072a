"""Multi-head self-attention."""
from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from spanbert_jax.model.attention.inputs import AttentionInputs, AttentionSpec
from spanbert_jax.model.attention.selection import get_backend
from spanbert_jax.model.config import ModelConfig
from spanbert_jax.model.dropout import split_seed
from spanbert_jax.model.layers import Dense, dense


class SelfAttention(nn.Module):
    """Scaled dot-product attention over N heads, with its output projection. [B, S, D] -> [B, S, D]."""
    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array, segments: jax.Array, seed: jax.Array | None) -> jax.Array:
        """Attention inside segments.

        Args:
          x: [B, S, D].
          segments: [B, S] integers, 0 for padding.
          seed: dropout seed, uint32 [2]; None without dropout.
        """
        config = self.config
        backend = get_backend(config.attention)
        parameters = [Dense(config, config.width, ("embed", "heads"), name=name).parameters(x.shape[-1])
                      for name in ("query", "key", "value")]
        # One product with joined kernels fills a matrix unit better than three narrow ones.
        kernels, biases = (backend.arrange(parts) for parts in zip(*parameters))

        def project(kernel: jax.Array, bias: jax.Array) -> jax.Array:
            flat = checkpoint_name(dense(config, x, kernel, bias), "projections")
            return nn.with_logical_constraint(flat, ("batch", "sequence", "heads"))

        seeds = None if seed is None else split_seed(seed, (x.shape[0], config.num_heads))
        inputs = AttentionInputs(tuple(map(project, kernels, biases)), segments, seeds)
        attend = functools.partial(backend.attend, spec=attention_spec(config))
        context = _on_each_device(attend, inputs) if backend.needs_shard_map else attend(inputs)
        return Dense(config, config.width, ("heads", "embed"), name="output")(context)


def attention_spec(config: ModelConfig) -> AttentionSpec:
    """The attention settings of a model."""
    return AttentionSpec(config.width // config.num_heads, config.attention_dropout, config.clamp_attention)


def _on_each_device(attend: Callable[[AttentionInputs], jax.Array], inputs: AttentionInputs) -> jax.Array:
    """Runs a kernel on each device's rows and heads, since the compiler cannot partition it."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return attend(inputs)
    flat = nn.logical_to_mesh_axes(("batch", None, "heads"))
    rows, _, heads = flat
    parts = AttentionInputs((flat,) * len(inputs.projections), PartitionSpec(rows), PartitionSpec(rows, heads))
    if inputs.seeds is None:
        parts = parts._replace(seeds=None)
    return jax.shard_map(attend, mesh=mesh, in_specs=(parts,), out_specs=flat, check_vma=False)(inputs)
