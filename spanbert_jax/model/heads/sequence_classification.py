"""The sequence classification head: logits of classes from the pooled vector of a text."""
from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax

from spanbert_jax.model.config import ComputeConfig, ModelConfig
from spanbert_jax.model.dropout import drop
from spanbert_jax.model.heads.base import HIDDEN, POOLED, ClassificationHead, HeadInputs
from spanbert_jax.model.heads.parts import classifier


@dataclasses.dataclass(frozen=True)
class SequenceClassification(ClassificationHead):
    """Classifies texts."""
    name = "sequence_classification"
    description = "A classifier of texts"

    @property
    def inputs(self) -> tuple[str, ...]:
        return (HIDDEN, POOLED)

    @property
    def per_text(self) -> bool:
        return True

    def modules(self, config: ModelConfig, compute: ComputeConfig) -> dict[str, nn.Module]:
        return {"classification_head": classifier(config, compute, len(self.labels))}

    def __call__(self, model: nn.Module, inputs: HeadInputs) -> dict[str, jax.Array]:
        assert inputs.pooled is not None, "it is one of the inputs"
        return {"logits": model.classification_head(drop(inputs.pooled, inputs.seed, inputs.dropout_rate))}
