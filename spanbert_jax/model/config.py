"""What a network is made of, and the named sizes."""
from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp

# Rows of the vocabulary are padded to this inside, so that they fill the lanes of an accelerator and divide evenly over
# the tensor axis of a mesh.
VOCABULARY_MULTIPLE = 128

# name: (layers L, width D, heads N). The feed-forward width is 4 D and a head is 64 wide, as in BERT.
SIZES: dict[str, tuple[int, int, int]] = {
    "tiny": (2, 128, 2),
    "mini": (4, 256, 4),
    "small": (4, 512, 8),
    "medium": (8, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A post-norm BERT encoder with SpanBERT's heads. The defaults are BERT-base's values.

    Attributes:
      vocab_size: pieces in the vocabulary, V before padding.
      num_layers: L.
      width: D.
      num_heads: N; a head is D / N wide.
      feed_forward: F.
      max_positions: rows of the table of learned positions: the longest segment.
      token_types: rows of the table of segment types.
      dropout: rate on embeddings and on both outputs of a layer.
      attention_dropout: rate on the attention probabilities.
      layer_norm_epsilon: added to the variance inside the root.
      initializer_range: standard deviation of every kernel and table.
      clamp_attention: clip attention scores to +-10,000 before masking, as the reference does for its large model.
      boundary_head: whether there is a span boundary head.
      boundary_positions: places in a span that the boundary head can predict.
      boundary_features: width of the boundary head's place embedding; 200 in the paper (section 3.2) and the reference.
      next_sentence_head: whether there are a pooler and a next-sentence head.
      pooler: whether an encoder that has no head has BERT's pooler.
      dtype: of the computation; parameters, layer norm, softmax and logits are float32 always.
      attention: how it is computed, a name in `spanbert_jax.model.attention.KINDS`; all compute the same.
      layers: "scanned" compiles one layer and loops, "unrolled" compiles each; parameters are laid out alike.
      remat: what the backward pass recomputes, a name in `spanbert_jax.model.encoder.REMAT`.
      gradient_dtype: in which the gradients of kernels and tables are summed over the devices; each device's own sums,
        and what comes of it, are float32 always.
    """
    vocab_size: int
    num_layers: int = 12
    width: int = 768
    num_heads: int = 12
    feed_forward: int = 3072
    max_positions: int = 512
    token_types: int = 2
    dropout: float = 0.1
    attention_dropout: float = 0.1
    layer_norm_epsilon: float = 1e-12
    initializer_range: float = 0.02
    clamp_attention: bool = False
    boundary_head: bool = True
    boundary_positions: int = 15
    boundary_features: int = 200
    next_sentence_head: bool = False
    pooler: bool = False
    dtype: str = "bfloat16"
    attention: str = "plain"
    layers: str = "unrolled"
    remat: str = "none"
    gradient_dtype: str = "float32"

    @classmethod
    def named(cls, size: str, *, vocab_size: int, **fields) -> "ModelConfig":
        """The network of a named size, a key of `SIZES`; other fields as given, the feed-forward width else 4 D."""
        num_layers, width, num_heads = SIZES[size]
        shape = dict(num_layers=num_layers, width=width, num_heads=num_heads) | fields
        return cls(vocab_size=vocab_size, **dict(feed_forward=4 * shape["width"]) | shape)

    @property
    def padded_vocab_size(self) -> int:
        """V inside: the vocabulary rounded up to `VOCABULARY_MULTIPLE`."""
        return math.ceil(self.vocab_size / VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE

    @property
    def norm_first(self) -> bool:
        """Whether layers normalise their input, and not what they have added to it."""
        return False

    @property
    def exact_gelu(self) -> bool:
        """Whether the GELU is that of BERT."""
        return True

    @property
    def compute_dtype(self) -> jnp.dtype:
        """The dtype of activations."""
        return jnp.dtype(self.dtype)


@dataclasses.dataclass(frozen=True)
class DecoderConfig(ModelConfig):
    """A decoder that attends to an encoder; heads of pretraining do not count.

    Attributes:
      kind: "bert" has the encoder's blocks, and a transform before its output; "gpt2" normalises first and once more in
        the end, has GELU by tanh, and no types, and its output is its piece embeddings alone.
    """
    kind: str = "bert"

    @classmethod
    def of(cls, network: ModelConfig, **fields: Any) -> "DecoderConfig":
        """The decoder that is made of an encoder's blocks, with other fields as given."""
        own = {field.name: getattr(network, field.name) for field in dataclasses.fields(ModelConfig)}
        return cls(**own | dict(boundary_head=False, next_sentence_head=False, pooler=False) | fields)

    @property
    def norm_first(self) -> bool:
        return self.kind == "gpt2"

    @property
    def exact_gelu(self) -> bool:
        return self.kind == "bert"
