"""The masked-token head: predicts a token from the hidden state at its own position."""
from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Float32

from spanbert_jax.model.config import ComputeConfig, ModelConfig
from spanbert_jax.model.functions import gelu
from spanbert_jax.model.heads.base import HIDDEN, TOKEN_EMBEDDING, Head, HeadInputs
from spanbert_jax.model.heads.parts import TiedOutput
from spanbert_jax.model.layers import Dense, Embed, LayerNorm


class MaskedTokenHead(nn.Module):
    """A transform and an output layer that shares the token embedding."""
    config: ModelConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B M D"], embedding: Embed) -> Float32[Array, "B M V"]:
        """Logits over the padded vocabulary."""
        config, compute = self.config, self.compute
        x = gelu(Dense(config, compute, config.width, ("embed", None), activated=True, name="transform")(x))
        return TiedOutput(config, name="output")(LayerNorm(config, compute, name="norm")(x), embedding)


def masked_token_logits(model: nn.Module, inputs: HeadInputs) -> Float32[Array, "B S V"]:
    """Logits of `model.masked_token_head` at every position, without the padding of the vocabulary."""
    logits = model.masked_token_head(inputs.hidden, inputs.token_embedding)
    return logits[..., :model.config.vocab_size]


@dataclasses.dataclass(frozen=True)
class MaskedLm(Head):
    """The masked-token head at every position."""
    name = "masked_lm"
    description = "An encoder with its masked-token head"

    @property
    def inputs(self) -> tuple[str, ...]:
        return (HIDDEN, TOKEN_EMBEDDING)

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("logits",)

    @property
    def parts(self) -> tuple[str, ...]:
        return ("masked-token head",)

    def modules(self, config: ModelConfig, compute: ComputeConfig) -> dict[str, nn.Module]:
        return {"masked_token_head": MaskedTokenHead(config, compute)}

    def __call__(self, model: nn.Module, inputs: HeadInputs) -> dict[str, jax.Array]:
        return {"logits": masked_token_logits(model, inputs)}
