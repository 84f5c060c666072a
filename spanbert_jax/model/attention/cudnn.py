"""cuDNN's fused attention on GPUs, through `jax.nn.dot_product_attention`; without dropout."""
import jax
from jax.ad_checkpoint import checkpoint_name

from spanbert_jax.model.attention import AttentionBackend, AttentionInputs, AttentionSpec
from spanbert_jax.model.attention.plain import attention_mask


def limits(length: int, heads: int, spec: AttentionSpec) -> str:
    """Why rows of this length and these settings are not supported; "" if they are."""
    if spec.dropout:
        return f"it has no dropout, and model.attention_dropout is {spec.dropout}"
    if spec.clamp:
        return "it does not clip scores, and model.clamp_attention is True"
    if spec.window:
        return f"it has no window, and this layer attends to {spec.window} positions"
    if spec.head_width % 8 or spec.head_width > 128:
        return f"it takes heads of a multiple of 8 up to 128, and these are {spec.head_width} wide"
    if length % 2:
        return f"it takes rows of an even length, and these have {length} positions"
    return ""


def attend(inputs: AttentionInputs, spec: AttentionSpec) -> jax.Array:
    """The context [B, S, D], equal to `plain.attend` to rounding."""
    query, key, value = inputs.split_heads(spec.head_width)
    mask = attention_mask(inputs.segments, inputs.segments)
    context = jax.nn.dot_product_attention(query, key, value, mask=mask, implementation="cudnn")
    return checkpoint_name(context.reshape(*context.shape[:2], -1), "context")


BACKEND = AttentionBackend("cudnn", attend, platform="gpu", dtypes=("bfloat16",), limits=limits)
