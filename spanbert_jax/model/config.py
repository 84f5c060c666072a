"""The fields that every architecture has. How a model is computed is in `compute`, what it predicts in `heads`."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from spanbert_jax.model.attention.inputs import AttentionSpec

# Rows of the vocabulary are padded to a multiple of this, so that they fill the lanes of an accelerator and divide
# evenly over the tensor axis of a mesh.
VOCABULARY_MULTIPLE = 128
C = TypeVar("C", bound="ModelConfig")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Base of the configs of all architectures; the defaults are BERT-base's values.

    Attributes:
      architecture: name of the architecture, in `architectures.ARCHITECTURES`.
      sizes: named sizes, with the fields that they set.
      vocab_size: tokens in the vocabulary, V before padding.
      num_layers: L.
      width: D.
      num_heads: N; a head is H = D / N wide.
      feed_forward: F.
      max_positions: number of learned positions, the longest segment.
      token_types: number of token types, such as first and second sentence; 0 without.
      dropout: rate on embeddings and on both outputs of a layer.
      attention_dropout: rate on the attention probabilities.
      layer_norm_epsilon: added to the variance under the root.
      initializer_range: standard deviation of initial kernels and embeddings.
    """
    architecture: ClassVar[str]
    sizes: ClassVar[Mapping[str, Mapping[str, int]]] = {}

    vocab_size: int
    num_layers: int = 12
    width: int = 768
    num_heads: int = 12
    feed_forward: int = 3072
    max_positions: int = 512
    token_types: int = 0
    dropout: float = 0.1
    attention_dropout: float = 0.1
    layer_norm_epsilon: float = 1e-12
    initializer_range: float = 0.02

    @classmethod
    def named(cls: type[C], size: str, *, vocab_size: int, **fields: Any) -> C:
        """The config of a named size, a key of `sizes`; other fields as given.

        A width that is given changes the feed-forward width in proportion, unless that is given too.
        """
        shape = dict(cls.sizes[size])
        if "width" in fields:
            shape["feed_forward"] = shape["feed_forward"] * fields["width"] // shape["width"]
        return cls(vocab_size=vocab_size, **shape | fields)

    @property
    def padded_vocab_size(self) -> int:
        """V of the embedding: the vocabulary rounded up to a multiple of `VOCABULARY_MULTIPLE`."""
        return math.ceil(self.vocab_size / VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE

    @property
    def attention_spec(self) -> AttentionSpec:
        """Settings of self-attention."""
        return AttentionSpec(self.width // self.num_heads, self.attention_dropout)
