"""Multi-head self-attention."""
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Integer, UInt32

from spanbert_jax.model.attention import AttentionInputs, get_backend
from spanbert_jax.model.config import ComputeConfig, ModelConfig
from spanbert_jax.model.dropout import split_seed
from spanbert_jax.model.layers import Dense, dense


class SelfAttention(nn.Module):
    """Scaled dot-product attention over N heads, with its output projection. [B, S, D] -> [B, S, D]."""
    config: ModelConfig
    compute: ComputeConfig
    use_bias: bool = True  # of the four projections
    window: int = 0  # see `AttentionSpec.window`

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"], segments: Integer[Array, "B S"], seed: UInt32[Array, " 2"] | None,
                 rotary: tuple[jax.Array, jax.Array] | None = None) -> Float[Array, "B S D"]:
        """Attention inside segments, 0 for padding.

        Args:
          seed: dropout seed; None without dropout.
          rotary: see `AttentionInputs.rotary`.
        """
        config, compute = self.config, self.compute
        # Parameters are the same for all backends, and rows may be shorter here than a kernel supports.
        backend = get_backend("plain" if self.is_initializing() else compute.attention, x.shape[1])
        make = functools.partial(Dense, config, compute, config.width, use_bias=self.use_bias)
        parameters = [make(("embed", "heads"), name=name).parameters(x.shape[-1]) for name in ("query", "key", "value")]
        # One product with joined kernels fills a matrix unit better than three narrow ones.
        kernels = backend.arrange([kernel for kernel, _ in parameters])
        present = [bias for _, bias in parameters if bias is not None]
        biases = backend.arrange(present) if present else (None,) * len(kernels)

        def project(kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
            flat = checkpoint_name(dense(compute, x, kernel, bias), "projections")
            return nn.with_logical_constraint(flat, ("batch", "sequence", "heads"))

        seeds = None if seed is None else split_seed(seed, (x.shape[0], config.num_heads))
        inputs = AttentionInputs(tuple(map(project, kernels, biases)), segments, seeds, rotary)
        spec = config.attention_spec._replace(window=self.window)

        def attend(inputs: AttentionInputs) -> jax.Array:
            with jax.named_scope(f"window_{spec.window}"):  # tells the kernels of layers apart in a compiled program
                return backend.attend(inputs, spec)

        context = _on_each_device(attend, inputs) if backend.needs_shard_map else attend(inputs)
        return make(("heads", "embed"), residual=True, name="output")(context)


def _on_each_device(attend: Callable[[AttentionInputs], jax.Array], inputs: AttentionInputs) -> jax.Array:
    """Runs a kernel on each device's rows and heads, since the compiler cannot partition it."""
    mesh = jax.sharding.get_abstract_mesh()
    # Inside a `shard_map`, as in prediction, the arrays are those of one device already.
    if all(kind == jax.sharding.AxisType.Manual for kind in mesh.axis_types):
        return attend(inputs)
    flat: Any = nn.logical_to_mesh_axes(("batch", None, "heads"))
    rows, _, heads = flat
    parts: Any = AttentionInputs((flat,) * len(inputs.projections), PartitionSpec(rows),  # type: ignore[arg-type]  # specs instead of arrays
                                 PartitionSpec(rows, heads))  # type: ignore[arg-type]
    if inputs.seeds is None:
        parts = parts._replace(seeds=None)
    if inputs.rotary is not None:
        parts = parts._replace(rotary=(PartitionSpec(rows),) * 2)
    return jax.shard_map(attend, mesh=mesh, in_specs=(parts,), out_specs=flat, check_vma=False)(inputs)
