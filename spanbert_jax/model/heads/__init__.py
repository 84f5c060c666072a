"""Heads, one file each with a `Head` and a name in `HEADS`, and the modules that several of them share."""
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Integer, UInt32

from spanbert_jax.common.registry import Registry
from spanbert_jax.model.config import ComputeConfig, ModelConfig
from spanbert_jax.model.dropout import drop
from spanbert_jax.model.functions import gelu
from spanbert_jax.model.layers import Dense, Embed, LayerNorm

POOLED, TOKEN_EMBEDDING, BOUNDARIES = "pooled", "token_embedding", "boundaries"
DEFAULT_LABELS = ("LABEL_0", "LABEL_1")
# transformers' names of what logits stand for: numbers; classes of which one holds; classes of which any number hold.
PROBLEM_TYPES = (REGRESSION, SINGLE_LABEL, MULTI_LABEL) = (
    "regression", "single_label_classification", "multi_label_classification")
PADDING_LOGIT = -1e9  # the logit of rows that pad the vocabulary: zero probability


@dataclasses.dataclass(frozen=True)
class Head:
    """A head: which modules it adds to an encoder, what they read and what they output.

    A head is a value, so that models which have it can be compared and hashed. Its modules are attributes of the model
    under the names that `modules` gives them, and so are their parameters.
    """
    name: ClassVar[str | None]  # in `HEADS`; None for the encoder alone
    description: ClassVar[str]  # of a model with this head, for model cards
    per_text: ClassVar[bool] = False  # whether its outputs have one entry for each text, not one for each position

    @property
    def inputs(self) -> tuple[str, ...]:
        """What it reads besides hidden states: `POOLED`, `TOKEN_EMBEDDING`, `BOUNDARIES` (around masked spans)."""
        return ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """The fields of `encoder_model.Outputs` that it computes."""
        return ()

    @property
    def parts(self) -> tuple[str, ...]:
        """Its parts in words, for messages."""
        return (f"{(self.name or 'no').replace('_', ' ')} head",)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its classes, a field of heads that classify; none for others."""
        return ()

    @property
    def problem_type(self) -> str | None:
        """What its logits stand for, one of `PROBLEM_TYPES`, a field of heads that classify; None if not known."""
        return None

    @property
    def exported_name(self) -> str | None:
        """The name of the head that has the same outputs in other libraries."""
        return self.name

    def modules(self, config: ModelConfig, compute: ComputeConfig) -> dict[str, nn.Module]:
        """Its modules by name."""
        return {}

    def __call__(self, model: nn.Module, hidden: Float[Array, "B S D"], pooled: Float[Array, "B *K D"] | None,
                 seed: UInt32[Array, " 2"] | None) -> dict[str, jax.Array]:
        """Its outputs by name.

        Args:
          model: has the head's modules as attributes.
          hidden: last hidden states.
          pooled: [B, D], or [B, K, D] for rows of K texts; None unless the head reads `POOLED`.
          seed: dropout seed; None without dropout.
        """
        return {}


@dataclasses.dataclass(frozen=True)
class EncoderOnly(Head):
    """No head."""
    name = None
    description = "An encoder"

    pooler: bool = False  # whether the model has BERT's pooler

    @property
    def inputs(self) -> tuple[str, ...]:
        return (POOLED,) if self.pooler else ()

    @property
    def parts(self) -> tuple[str, ...]:
        return ("pooler",) if self.pooler else super().parts


@dataclasses.dataclass(frozen=True)
class ClassificationHead(Head):
    """Base of heads that classify hidden states or, if they read it, the pooled vector."""
    outputs = ("logits",)

    labels: tuple[str, ...] = DEFAULT_LABELS
    problem_type: str | None = None

    def modules(self, config: ModelConfig, compute: ComputeConfig) -> dict[str, nn.Module]:
        transform = {} if POOLED in self.inputs else position_transform(config, compute)
        return transform | {"classification_head": classifier(config, compute, len(self.labels))}

    def __call__(self, model: nn.Module, hidden: jax.Array, pooled: jax.Array | None,
                 seed: jax.Array | None) -> dict[str, jax.Array]:
        x = transformed(model, hidden) if pooled is None else pooled
        return {"logits": model.classification_head(drop(x, seed, model.config.head_dropout))}


_HERE = "spanbert_jax.model.heads"
HEADS: Registry[type[Head]] = Registry("head", "heads", {
    "pretraining": f"{_HERE}.pretraining:PretrainingHeads", "masked_lm": f"{_HERE}.masked_tokens:MaskedLm",
    "question_answering": f"{_HERE}.question_answering:QuestionAnswering",
    "sequence_classification": f"{_HERE}.sequence_classification:SequenceClassification",
    "token_classification": f"{_HERE}.token_classification:TokenClassification"})


def head_names() -> tuple[str | None, ...]:
    """All names that `make_head` takes."""
    return (None, *HEADS.names())


def make_head(name: str | None, labels: Sequence[str] | None = None, problem_type: str | None = None) -> Head:
    """A head by name. One that classifies has these classes, or `DEFAULT_LABELS`, and this problem type.

    Raises UserError for other names.
    """
    head = EncoderOnly() if name is None else HEADS.get(name)()
    if isinstance(head, ClassificationHead):
        return dataclasses.replace(head, labels=tuple(labels or head.labels), problem_type=problem_type)
    return head


def gather(hidden: Float[Array, "B S D"], positions: Integer[Array, "B M"]) -> Float[Array, "B M D"]:
    """The hidden states at given positions."""
    return jnp.take_along_axis(hidden, positions[..., None], axis=1)


def mask_padding(config: ModelConfig, logits: Float32[Array, "B M V"]) -> Float32[Array, "B M V"]:
    """Logits over the padded vocabulary, with `PADDING_LOGIT` for rows that are padding."""
    return jnp.where(jnp.arange(config.padded_vocab_size) < config.vocab_size, logits, PADDING_LOGIT)


class TiedOutput(nn.Module):
    """Logits over the padded vocabulary, from the token embedding and a bias of its own."""
    config: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B M D"], embedding: Embed) -> Float32[Array, "B M V"]:
        """Logits of states."""
        init = nn.with_logical_partitioning(nn.initializers.zeros_init(), ("vocab",))
        bias: Any = self.param("bias", init, (self.config.padded_vocab_size,), jnp.float32)
        logits = nn.with_logical_constraint(embedding.logits(x) + bias, ("batch", None, "vocab"))
        return mask_padding(self.config, logits)


class Pooler(Dense):
    """BERT's pooler: a projection of the first position of a text, with a hyperbolic tangent."""

    def __call__(self, hidden: Float[Array, "B S D"],  # type: ignore[override]  # it reads more than a `Dense`
                 segments: Integer[Array, "B S"], first: Integer[Array, "B K"] | None = None) -> Float[Array, "B *K D"]:
        """Vectors [B, D] of rows, or [B, K, D] of the K texts in each.

        Args:
          segments: 0 for padding; k + 1 in text k.
          first: where the texts of a row start; None for rows of one text.
        """
        return jnp.tanh(super().__call__(hidden[:, 0] if first is None else gather(hidden, first)))


def make_pooler(config: ModelConfig, compute: ComputeConfig) -> nn.Module:
    """The pooler of an architecture, called as `Pooler`."""
    return config.make_pooler(compute) or Pooler(config, compute, config.width, ("embed", None))


def transform(config: ModelConfig, compute: ComputeConfig, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """Projection, GELU and layer norm before an output. Call it in the `nn.compact` method of the owning module."""
    x = Dense(config, compute, config.width, ("embed", None), True, config.head_bias, name="transform")(x)
    return LayerNorm(config, compute, config.norm_bias, name="norm")(gelu(x))


def position_transform(config: ModelConfig, compute: ComputeConfig) -> dict[str, nn.Module]:
    """The module before a classifier of positions, by name; none for architectures without."""
    module = config.make_position_transform(compute)
    return {} if module is None else {"prediction_head": module}


def transformed(model: nn.Module, hidden: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
    """Hidden states as a classifier of positions reads them, by the module of `position_transform`."""
    return model.prediction_head(hidden) if hasattr(model, "prediction_head") else hidden


def classifier(config: ModelConfig, compute: ComputeConfig, classes: int) -> Dense:
    """Logits of classes, [..., D] -> [..., classes], in the activation dtype."""
    return Dense(config, compute, classes, ("embed", None))
