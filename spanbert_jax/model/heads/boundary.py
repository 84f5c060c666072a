"""The span boundary head: predicts a token of a span from the hidden states around the span (SpanBERT, section 3.2)."""
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Integer

from spanbert_jax.model.config import ComputeConfig, ModelConfig
from spanbert_jax.model.functions import gelu
from spanbert_jax.model.heads import TiedOutput
from spanbert_jax.model.layers import Dense, Embed, LayerNorm


class BoundaryHead(nn.Module):
    """Two layers with GELU and layer norm over [left; right; place], and an output that shares the token embedding."""
    config: ModelConfig
    compute: ComputeConfig
    places: int  # places in a span that can be predicted
    features: int  # width of the place embedding

    @nn.compact
    def __call__(self, left: Float[Array, "B M D"], right: Float[Array, "B M D"], place: Integer[Array, "B M"],
                 embedding: Embed) -> Float32[Array, "B M V"]:
        """Logits over the padded vocabulary.

        Args:
          left, right: hidden states of the tokens before and after the span.
          place: index of the token in its span. Larger ones than the last place, which are never targets, are read as
            the last: out of bounds the look-up gives NaN.
        """
        config, compute = self.config, self.compute
        places = Embed(config, compute, self.places, self.features, (None, None), name="place")
        x = jnp.concatenate([left, right, places(jnp.minimum(place, self.places - 1))], axis=-1)
        first = Dense(config, compute, config.width, (None, "embed"), activated=True, name="first")
        second = Dense(config, compute, config.width, ("embed", None), activated=True, name="second")
        x = LayerNorm(config, compute, name="first_norm")(gelu(first(x)))
        x = LayerNorm(config, compute, name="second_norm")(gelu(second(x)))
        return TiedOutput(config, name="output")(x, embedding)
