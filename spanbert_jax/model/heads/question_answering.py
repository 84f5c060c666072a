"""The question answering head: logits of the start and the end of an answer at every position."""
import flax.linen as nn
import jax

from spanbert_jax.model.config import ComputeConfig, ModelConfig
from spanbert_jax.model.heads import Head, classifier, position_transform, transformed


class QuestionAnswering(Head):
    """Marks answers in texts."""
    name = "question_answering"
    description = "A reader that marks answers in texts"
    outputs = ("start_logits", "end_logits")

    def modules(self, config: ModelConfig, compute: ComputeConfig) -> dict[str, nn.Module]:
        return position_transform(config, compute) | {"question_answering_head": classifier(config, compute, 2)}

    def __call__(self, model: nn.Module, hidden: jax.Array, pooled: jax.Array | None,
                 seed: jax.Array | None) -> dict[str, jax.Array]:
        logits = model.question_answering_head(transformed(model, hidden))
        return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}
