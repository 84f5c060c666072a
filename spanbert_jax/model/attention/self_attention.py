"""Multi-head self-attention."""
from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from spanbert_jax.model.attention.call import AttentionCall, AttentionKind
from spanbert_jax.model.attention.choice import KINDS, implementation, lay_out
from spanbert_jax.model.config import ModelConfig
from spanbert_jax.model.dropout import split_seed
from spanbert_jax.model.layers import Dense, dense


class SelfAttention(nn.Module):
    """Scaled dot-product attention over N heads, with its output projection. [B, S, D] -> [B, S, D]."""
    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array, segments: jax.Array, seed: jax.Array | None) -> jax.Array:
        """The context of every position. Without a seed [2] there is no dropout."""
        config = self.config
        way = implementation(config.attention)
        parameters = [Dense(config, config.width, ("embed", "heads"), name=name).parameters(x.shape[-1])
                      for name in ("query", "key", "value")]
        # Joined, one product makes all three: the narrower they are, the less of a matrix unit's time they fill.
        kernels, biases = (lay_out(way, parts) for parts in zip(*parameters))

        def project(kernel: jax.Array, bias: jax.Array) -> jax.Array:
            flat = checkpoint_name(dense(config, x, kernel, bias), "projections")
            return nn.with_logical_constraint(flat, ("batch", "sequence", "heads"))

        seeds = None if seed is None else split_seed(seed, (x.shape[0], config.num_heads))
        call = AttentionCall(tuple(map(project, kernels, biases)), segments, seeds)
        attend = functools.partial(way.attend, kind=attention_kind(config))
        _, is_kernel = KINDS[config.attention]
        context = _on_each_device(attend, call) if is_kernel else attend(call)
        return Dense(config, config.width, ("heads", "embed"), name="output")(context)


def attention_kind(config: ModelConfig) -> AttentionKind:
    """What is the same for every attention of a network."""
    return AttentionKind(config.width // config.num_heads, config.attention_dropout, config.clamp_attention)


def _on_each_device(attend: Callable[[AttentionCall], jax.Array], call: AttentionCall) -> jax.Array:
    """Runs a kernel on each device's rows and heads: the compiler cannot see how to split it."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return attend(call)
    flat = nn.logical_to_mesh_axes(("batch", None, "heads"))
    rows, _, heads = flat
    parts = AttentionCall((flat,) * len(call.projections), PartitionSpec(rows), PartitionSpec(rows, heads))
    if call.seeds is None:
        parts = parts._replace(seeds=None)
    return jax.shard_map(attend, mesh=mesh, in_specs=(parts,), out_specs=flat, check_vma=False)(call)
