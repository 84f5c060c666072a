"""Self-attention: the module, and its backends, one file each."""
from spanbert_jax.model.attention.inputs import AttentionInputs as AttentionInputs
from spanbert_jax.model.attention.inputs import AttentionSpec as AttentionSpec
from spanbert_jax.model.attention.selection import BACKENDS as BACKENDS
from spanbert_jax.model.attention.selection import AttentionBackend as AttentionBackend
from spanbert_jax.model.attention.selection import get_backend as get_backend
from spanbert_jax.model.attention.selection import select_backend as select_backend
