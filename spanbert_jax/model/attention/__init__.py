"""Self-attention: the module, and one file for each way of computing it."""
from spanbert_jax.model.attention.call import AttentionCall as AttentionCall
from spanbert_jax.model.attention.call import AttentionKind as AttentionKind
from spanbert_jax.model.attention.choice import KINDS as KINDS
from spanbert_jax.model.attention.choice import choose as choose
from spanbert_jax.model.attention.choice import implementation as implementation
from spanbert_jax.model.attention.choice import lay_out as lay_out
from spanbert_jax.model.attention.choice import unsupported_reason as unsupported_reason
from spanbert_jax.model.attention.plain import CLAMP as CLAMP
from spanbert_jax.model.attention.plain import MASKED_SCORE as MASKED_SCORE
from spanbert_jax.model.attention.self_attention import SelfAttention as SelfAttention
from spanbert_jax.model.attention.self_attention import attention_kind as attention_kind
