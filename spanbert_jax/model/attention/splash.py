"""Splash attention, JAX's Pallas kernel for TPUs: blockwise, for long rows, without dropout."""
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from spanbert_jax.model.attention import AttentionBackend, AttentionInputs, AttentionSpec, paired_heads

LANES = 128
BLOCK, WINDOW_BLOCK = 1024, 256  # longest side of a block, without and with a window
# Queries and keys of a block in the backward pass without a window. It keeps the gradient of the queries once for each
# block of keys, to be summed afterwards; more of both would exceed a TPU's vector memory by default.
BACKWARD_QUERIES, BACKWARD_KEYS = 512, 2048


def limits(length: int, heads: int, spec: AttentionSpec) -> str:
    """Why rows of this length and these settings are not supported; "" if they are."""
    if spec.dropout:
        return f"it has no dropout, and model.attention_dropout is {spec.dropout}"
    if spec.clamp:
        return "it does not clip scores, and model.clamp_attention is True"
    if length % LANES:
        return f"it takes rows of a multiple of {LANES} positions, and these have {length}"
    return ""


def attend(inputs: AttentionInputs, spec: AttentionSpec) -> jax.Array:
    """The context [B, S, D], equal to `plain.attend` to rounding, except at padding, which attends to padding."""
    heads = inputs.projections[0].shape[-1] // spec.head_width
    if 0 < spec.window <= paired_heads.LONGEST // 2 and not paired_heads.limits(LANES, heads, spec):
        return paired_heads.attend_in_pieces(inputs, spec)  # a fifth of this kernel's time
    query, key, value = inputs._replace(rotary=None).split_heads(spec.head_width)
    query, key, value = (array.swapaxes(1, 2) for array in (*_rotate([query, key], inputs.rotary), value))
    rows, _, length, _ = query.shape
    block = _block(length, WINDOW_BLOCK if spec.window else BLOCK)
    backward: dict[str, Any]
    if spec.window:  # the fused backward kernel visits blocks outside of the window too
        backward = dict(block_q_dkv=block, block_kv_dkv=block, block_kv_dkv_compute=block, block_q_dq=block,
                        block_kv_dq=block)
    else:
        keys = _block(length, BACKWARD_KEYS)
        backward = dict(block_q_dkv=_block(length, BACKWARD_QUERIES), block_kv_dkv=keys,
                        block_kv_dkv_compute=_block(keys, BLOCK), use_fused_bwd_kernel=True)
    sizes = kernels.BlockSizes(block_q=block, block_kv=block, block_kv_compute=block, **backward)
    shape, reach = (length, length), spec.window // 2
    mask = masks.LocalMask(shape, (reach, reach), offset=0) if spec.window else masks.FullMask(shape)
    kernel = kernels.make_splash_mha_single_device(masks.MultiHeadMask([mask] * heads), block_sizes=sizes,
                                                   residual_checkpoint_name="context")
    segments = inputs.segments.astype(jnp.int32)
    context = jax.vmap(kernel)(query * spec.head_width ** -0.5, key, value, kernels.SegmentIds(segments, segments))
    return context.swapaxes(1, 2).reshape(rows, length, -1)


def _block(length: int, longest: int) -> int:
    """The longest block that divides a length."""
    return max(size for size in range(LANES, min(length, longest) + 1, LANES) if length % size == 0)


def _rotate(heads: Sequence[jax.Array], rotary: tuple[jax.Array, jax.Array] | None) -> Sequence[jax.Array]:
    """Rotates queries and keys [B, S, N, H] as `AttentionInputs.rotate` does, to rounding.

    The halves of a head change places by a product with a matrix of 0, 1 and -1, which is exact. Without it, a layer
    with rows of 8,192 takes a third more cycles outside of kernels: half a head fills a quarter of the lanes of a TPU.
    """
    if rotary is None:
        return heads
    cos, sin = (jnp.concatenate([part, part], axis=-1)[:, :, None] for part in rotary)
    half = rotary[0].shape[-1]
    turn = np.kron([[0, 1], [-1, 0]], np.eye(half))
    return [(each * cos + sin * jnp.einsum("BSNH,HK->BSNK", each, jnp.asarray(turn, each.dtype),
                                           precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)
             ).astype(each.dtype) for each in heads]


BACKEND = AttentionBackend("splash", attend, platform="tpu", needs_shard_map=True, dtypes=("bfloat16",), limits=limits)
