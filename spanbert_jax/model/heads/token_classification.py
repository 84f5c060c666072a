"""The token classification head: logits of classes at every position."""
from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax

from spanbert_jax.model.config import ComputeConfig, ModelConfig
from spanbert_jax.model.dropout import drop
from spanbert_jax.model.heads.base import ClassificationHead, HeadInputs
from spanbert_jax.model.heads.parts import classifier


@dataclasses.dataclass(frozen=True)
class TokenClassification(ClassificationHead):
    """Classifies tokens."""
    name = "token_classification"
    description = "A classifier of tokens"

    def modules(self, config: ModelConfig, compute: ComputeConfig) -> dict[str, nn.Module]:
        return {"classification_head": classifier(config, compute, len(self.labels))}

    def __call__(self, model: nn.Module, inputs: HeadInputs) -> dict[str, jax.Array]:
        return {"logits": model.classification_head(drop(inputs.hidden, inputs.seed, inputs.dropout_rate))}
