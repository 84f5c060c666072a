"""JAX's own TPU kernel for long rows, blockwise and without dropout (Pallas splash attention)."""
from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from spanbert_jax.model.attention.call import AttentionCall, AttentionKind

LANES = 128
# Longest side of a block.
BLOCK = 512


def unsupported_reason(length: int, heads: int, kind: AttentionKind) -> str:
    """Why it cannot compute such rows; empty if it can."""
    if kind.dropout:
        return f"it has no dropout, and model.attention_dropout is {kind.dropout}"
    if kind.clamp:
        return "it does not clip scores, and model.clamp_attention is True"
    if length % LANES:
        return f"it takes rows of a multiple of {LANES} positions, and these have {length}"
    return ""


def attend(call: AttentionCall, kind: AttentionKind) -> jax.Array:
    """As `plain.attend`, but that padding looks at padding; what it computes is never used. Returns [B, S, D]."""
    query, key, value = (array.swapaxes(1, 2) for array in call.heads(kind.head_width))
    rows, heads, length, _ = query.shape
    block = max(size for size in range(LANES, min(BLOCK, length) + 1, LANES) if length % size == 0)
    sizes = kernels.BlockSizes(
        block_q=block, block_kv=block, block_kv_compute=block, block_q_dkv=block, block_kv_dkv=block,
        block_kv_dkv_compute=block, use_fused_bwd_kernel=True)
    kernel = kernels.make_splash_mha_single_device(
        masks.MultiHeadMask([masks.FullMask((length, length))] * heads), block_sizes=sizes,
        residual_checkpoint_name="context")
    segments = call.segments.astype(jnp.int32)
    context = jax.vmap(kernel)(query * kind.head_width ** -0.5, key, value, kernels.SegmentIds(segments, segments))
    return context.swapaxes(1, 2).reshape(rows, length, -1)
