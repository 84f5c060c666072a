"""The heads of pretraining together: masked tokens, span boundaries, next sentence."""
import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from spanbert_jax.model.config import ComputeConfig, ModelConfig
from spanbert_jax.model.heads import BOUNDARIES, POOLED, TOKEN_EMBEDDING, Head, classifier
from spanbert_jax.model.heads.boundary import BoundaryHead
from spanbert_jax.model.heads.masked_tokens import MaskedLm


@dataclasses.dataclass(frozen=True)
class PretrainingHeads(Head):
    """The masked-token head with further heads of pretraining."""
    name = "pretraining"
    description = "An encoder with its pretraining heads"

    boundary: bool = True  # whether there is a span boundary head
    boundary_positions: int = 15  # places in a span that the boundary head can predict
    boundary_features: int = 200  # width of its place embedding; 200 in the paper (section 3.2) and the reference
    next_sentence: bool = False  # whether there are a pooler and a next-sentence head

    @property
    def inputs(self) -> tuple[str, ...]:
        return (TOKEN_EMBEDDING, *[POOLED] * self.next_sentence, *[BOUNDARIES] * self.boundary)

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("logits", *["next_sentence_logits"] * self.next_sentence)

    @property
    def parts(self) -> tuple[str, ...]:
        return ("masked-token head", *["span boundary head"] * self.boundary,
                *["next-sentence head"] * self.next_sentence)

    @property
    def exported_name(self) -> str | None:
        return self.name if self.next_sentence else MaskedLm.name

    def modules(self, config: ModelConfig, compute: ComputeConfig) -> dict[str, nn.Module]:
        modules = MaskedLm().modules(config, compute)
        if self.boundary:
            modules["boundary_head"] = BoundaryHead(config, compute, self.boundary_positions, self.boundary_features)
        if self.next_sentence:
            modules["next_sentence_head"] = classifier(config, compute, 2)
        return modules

    def __call__(self, model: nn.Module, hidden: jax.Array, pooled: jax.Array | None,
                 seed: jax.Array | None) -> dict[str, jax.Array]:
        outputs = MaskedLm()(model, hidden, pooled, seed)
        if self.next_sentence:
            outputs["next_sentence_logits"] = model.next_sentence_head(pooled)
        if self.boundary and model.is_initializing():
            nowhere = jnp.zeros((hidden.shape[0], 1), jnp.int32)
            model.boundary_logits(hidden, nowhere, nowhere, nowhere)
        return outputs

    def multiply_adds(self, config: ModelConfig, masked: int) -> int:
        """Multiplications of the matrix products for a row with `masked` masked positions."""
        width, vocabulary = config.width, config.padded_vocab_size
        total = masked * (width * width + width * vocabulary)
        if self.boundary:
            first = (2 * width + self.boundary_features) * width
            total += masked * (first + width * width + width * vocabulary)
        if self.next_sentence:
            total += width * width + 2 * width
        return total
