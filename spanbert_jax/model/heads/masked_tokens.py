"""The masked-token head: predicts a token from the hidden state at its own position."""
import flax.linen as nn
import jax
from jaxtyping import Array, Float, Float32

from spanbert_jax.model.config import ComputeConfig, ModelConfig
from spanbert_jax.model.heads import TOKEN_EMBEDDING, Head, TiedOutput, transform
from spanbert_jax.model.layers import Embed


class MaskedTokenHead(nn.Module):
    """A transform and an output layer that shares the token embedding."""
    config: ModelConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B M D"], embedding: Embed) -> Float32[Array, "B M V"]:
        """Logits over the padded vocabulary."""
        x = transform(self.config, self.compute, x)
        return TiedOutput(self.config, name="output")(x, embedding)


class MaskedLm(Head):
    """The masked-token head at every position."""
    name = "masked_lm"
    description = "An encoder with its masked-token head"
    inputs = (TOKEN_EMBEDDING,)
    outputs = ("logits",)
    parts = ("masked-token head",)

    def modules(self, config: ModelConfig, compute: ComputeConfig) -> dict[str, nn.Module]:
        return {"masked_token_head": MaskedTokenHead(config, compute)}

    def __call__(self, model: nn.Module, hidden: jax.Array, pooled: jax.Array | None,
                 seed: jax.Array | None) -> dict[str, jax.Array]:
        logits = model.masked_token_head(hidden, model.encoder.token_embedding())
        return {"logits": logits[..., :model.config.vocab_size]}
