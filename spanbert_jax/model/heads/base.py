"""The interface of heads."""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
from jaxtyping import Array, Float, UInt32

from spanbert_jax.model.config import ComputeConfig, ModelConfig
from spanbert_jax.model.layers import Embed

HIDDEN, POOLED, TOKEN_EMBEDDING, BOUNDARIES = "hidden", "pooled", "token_embedding", "boundaries"
DEFAULT_LABELS = ("LABEL_0", "LABEL_1")


class HeadInputs(NamedTuple):
    """What a model hands to its head.

    Attributes:
      hidden: last hidden states.
      pooled: [B, D], or [B, K, D] for rows of K texts; None unless the head declares `POOLED`.
      token_embedding: the encoder's token embedding.
      dropout_rate: of the model.
      seed: dropout seed; None without dropout.
    """
    hidden: Float[Array, "B S D"]
    pooled: Float[Array, "B *K D"] | None
    token_embedding: Embed
    dropout_rate: float
    seed: UInt32[Array, " 2"] | None


@dataclasses.dataclass(frozen=True)
class Head:
    """A head: which modules it adds to an encoder, what they read and what they output.

    A head is a value, so that models which have it can be compared and hashed. Its modules are attributes of the model
    under the names that `modules` gives them, and so are their parameters.

    Attributes:
      name: in `HEADS`; None of the encoder alone.
      description: what a model with this head is, for model cards.
    """
    name: ClassVar[str | None]
    description: ClassVar[str]

    @property
    def inputs(self) -> tuple[str, ...]:
        """What it reads: `HIDDEN`, `POOLED`, `TOKEN_EMBEDDING`, `BOUNDARIES` (positions around masked spans)."""
        return (HIDDEN,)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The fields of `encoder_model.Outputs` that it computes."""
        return ()

    @property
    def parts(self) -> tuple[str, ...]:
        """Its parts in words, for messages."""
        return (f"{(self.name or 'no').replace('_', ' ')} head",)

    @property
    def per_text(self) -> bool:
        """Whether its outputs have one entry for each text, not one for each position."""
        return False

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its classes; none if it does not classify."""
        return ()

    @property
    def exported_name(self) -> str | None:
        """The name of the head that has the same outputs in other libraries."""
        return self.name

    def with_labels(self, labels: Sequence[str]) -> Head:
        """This head with other classes; unchanged if it does not classify."""
        return self

    def modules(self, config: ModelConfig, compute: ComputeConfig) -> dict[str, nn.Module]:
        """Its modules by name."""
        return {}

    def __call__(self, model: nn.Module, inputs: HeadInputs) -> dict[str, jax.Array]:
        """Its outputs by name; `model` has its modules as attributes."""
        return {}


@dataclasses.dataclass(frozen=True)
class EncoderOnly(Head):
    """No head.

    Attributes:
      pooler: whether the model has BERT's pooler.
    """
    name = None
    description = "An encoder"

    pooler: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        return (HIDDEN, POOLED) if self.pooler else (HIDDEN,)

    @property
    def parts(self) -> tuple[str, ...]:
        return ("pooler",) if self.pooler else super().parts


@dataclasses.dataclass(frozen=True)
class ClassificationHead(Head):
    """Base of heads that classify; `classification_head` is their projection."""
    labels: tuple[str, ...] = DEFAULT_LABELS

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("logits",)

    def with_labels(self, labels: Sequence[str]) -> Head:
        return dataclasses.replace(self, labels=tuple(labels))
