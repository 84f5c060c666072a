"""How a model is computed: options that change speed, memory and rounding, but not the parameters."""
from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from spanbert_jax.common.settings import Settings, setting
from spanbert_jax.model.attention.selection import BACKENDS

# Which activations the forward pass keeps for the backward pass, which recomputes the others; "none" keeps all.
REMAT_POLICIES = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "names": jax.checkpoint_policies.save_only_these_names(
        "projections", "context", "attention_output", "feed_forward", "layer_output"),
}


def _attention_choices() -> tuple[str, ...]:
    return "auto", *BACKENDS.names()


@dataclasses.dataclass(frozen=True)
class ComputeConfig(Settings):
    """How a model is computed. Parameters, layer norm, softmax and logits are float32 whatever `dtype` is."""
    dtype: str = setting("bfloat16", "Type of activations and of matrix products; parameters are float32.",
                         choices=("bfloat16", "float32"))
    attention: str = setting("auto", "Attention backend; 'auto' is the fastest one that supports the model and the "
                             "devices. All backends compute the same function.", choices=_attention_choices)
    layers: str = setting("unrolled", "'scanned' compiles one layer and loops over it, which compiles faster; "
                          "'unrolled' compiles every layer, which runs faster.", choices=("scanned", "unrolled"))
    remat: str = setting("none", "Activations that the backward pass recomputes to save memory: none, all ('full'), "
                         "all but matrix products ('dots'), or all but a few named ones ('names').",
                         choices=tuple(REMAT_POLICIES))
    gradient_dtype: str = setting("float32", "Type in which gradients are summed over devices; 'bfloat16' sends half "
                                  "the bytes.", choices=("float32", "bfloat16"))

    @property
    def activation_dtype(self) -> jnp.dtype:
        """The dtype of activations."""
        return jnp.dtype(self.dtype)
