"""cuDNN's fused attention on GPUs, through `jax.nn.dot_product_attention`; without dropout."""
from __future__ import annotations

import jax
from jax.ad_checkpoint import checkpoint_name

from spanbert_jax.model.attention.call import AttentionCall, AttentionKind
from spanbert_jax.model.attention.plain import attention_mask


def unsupported_reason(length: int, heads: int, kind: AttentionKind) -> str:
    """Why it cannot compute such rows; empty if it can."""
    if kind.dropout:
        return f"it has no dropout, and model.attention_dropout is {kind.dropout}"
    if kind.clamp:
        return "it does not clip scores, and model.clamp_attention is True"
    if kind.head_width % 8 or kind.head_width > 128:
        return f"it takes heads of a multiple of 8 up to 128, and these are {kind.head_width} wide"
    if length % 2:
        return f"it takes rows of an even length, and these have {length} positions"
    return ""


def attend(call: AttentionCall, kind: AttentionKind) -> jax.Array:
    """As `plain.attend`, to rounding. Returns the context [B, S, D]."""
    context = jax.nn.dot_product_attention(
        *call.heads(kind.head_width), mask=attention_mask(call.segments, call.segments), implementation="cudnn")
    return checkpoint_name(context.reshape(*context.shape[:2], -1), "context")
