"""cuDNN's fused attention on GPUs, through `jax.nn.dot_product_attention`; without dropout.

cuDNN's own window looks only to the left, in causal attention. Here each block of queries with a window becomes a row
of its own, with the keys around it.
"""
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from spanbert_jax.model.attention import AttentionBackend, AttentionInputs, AttentionSpec
from spanbert_jax.model.attention.plain import attention_mask, window_mask

BLOCK = 128  # queries that share their keys, with a window


def limits(length: int, heads: int, spec: AttentionSpec) -> str:
    """Why rows of this length and these settings are not supported; "" if they are."""
    if spec.dropout:
        return f"it has no dropout, and model.attention_dropout is {spec.dropout}"
    if spec.clamp:
        return "it does not clip scores, and model.clamp_attention is True"
    if spec.head_width % 8 or spec.head_width > 128:
        return f"it takes heads of a multiple of 8 up to 128, and these are {spec.head_width} wide"
    if length % 2:
        return f"it takes rows of an even length, and these have {length} positions"
    return ""


def attend(inputs: AttentionInputs, spec: AttentionSpec) -> jax.Array:
    """The context [B, S, D], equal to `plain.attend` to rounding."""
    query, key, value = inputs.split_heads(spec.head_width)
    rows, length, *_ = query.shape
    reach = spec.window // 2
    if not spec.window or BLOCK + 2 * reach >= length:
        mask = attention_mask(inputs.segments, inputs.segments)
        mask = mask & window_mask(length, spec.window) if spec.window else mask
        context = jax.nn.dot_product_attention(query, key, value, mask=mask, implementation="cudnn")
    else:
        query, query_segments = (_bands(array, 0) for array in (query, inputs.segments))
        key, value, key_segments = (_bands(array, reach) for array in (key, value, inputs.segments))
        distance = jnp.arange(BLOCK)[:, None] - jnp.arange(-reach, BLOCK + reach)
        mask = attention_mask(query_segments, key_segments) & (jnp.abs(distance) <= reach)
        context = jax.nn.dot_product_attention(query, key, value, mask=mask, implementation="cudnn")
        context = context.reshape(rows, -1, *context.shape[2:])[:, :length]
    return checkpoint_name(context.reshape(rows, length, -1), "context")


def _bands(array: jax.Array, reach: int) -> jax.Array:
    """Each block of positions as a row, with `reach` more on both sides. [B, S, ...] -> [B S / BLOCK, T, ...]."""
    rows, length, *rest = array.shape
    blocks = -(-length // BLOCK)
    widths = [(0, 0), (reach, blocks * BLOCK - length + reach), *[(0, 0)] * len(rest)]
    positions = BLOCK * jnp.arange(blocks)[:, None] + jnp.arange(BLOCK + 2 * reach)
    return jnp.pad(array, widths)[:, positions].reshape(rows * blocks, -1, *rest)


BACKEND = AttentionBackend("cudnn", attend, platform="gpu", dtypes=("bfloat16",), limits=limits)
