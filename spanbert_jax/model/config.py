"""The fields that every architecture has, and how a model is computed. What it predicts is in `heads`."""
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from spanbert_jax.common.settings import Settings, setting
from spanbert_jax.model.attention import BACKENDS, AttentionSpec
from spanbert_jax.model.functions import gelu

# Rows of the vocabulary are padded to a multiple of this, so that they fill the lanes of an accelerator and divide
# evenly over the tensor axis of a mesh.
VOCABULARY_MULTIPLE = 128
C = TypeVar("C", bound="ModelConfig")
# Which activations the forward pass keeps for the backward pass, which recomputes the others; "none" keeps all.
REMAT_POLICIES = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "names": jax.checkpoint_policies.save_only_these_names(
        "projections", "context", "attention_output", "feed_forward", "layer_output"),
}


@dataclasses.dataclass(frozen=True)
class ComputeConfig(Settings):
    """How a model is computed. Parameters, layer norm, softmax and logits are float32 whatever `dtype` is."""
    dtype: str = setting("bfloat16", "Type of activations and of matrix products; parameters are float32.",
                         choices=("bfloat16", "float32"))
    attention: str = setting("auto", "Attention backend; 'auto' is the fastest one that supports the model and the "
                             "devices. All backends compute the same function.",
                             choices=lambda: ("auto", *BACKENDS.names()))
    layers: str = setting("unrolled", "'scanned' compiles one layer and loops over it, which compiles faster; "
                          "'unrolled' compiles every layer, which runs faster.", choices=("scanned", "unrolled"))
    remat: str = setting("none", "Activations that the backward pass recomputes to save memory: none, all ('full'), "
                         "all but matrix products ('dots'), or all but a few named ones ('names').",
                         choices=tuple(REMAT_POLICIES))
    gradient_dtype: str = setting("float32", "Type in which gradients are summed over devices; 'bfloat16' sends half "
                                  "the bytes.", choices=("float32", "bfloat16"))

    @property
    def activation_dtype(self) -> jnp.dtype:
        """The dtype of activations."""
        return jnp.dtype(self.dtype)

    @property
    def remat_options(self) -> dict[str, Any]:
        """Options of `jax.checkpoint` and `nn.remat` for a layer, unless `remat` is "none"."""
        # Inside a loop nothing can be merged with its recomputation, so preventing that would only cost time.
        return {"policy": REMAT_POLICIES[self.remat], "prevent_cse": self.layers == "unrolled"}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Base of the configs of all architectures; the defaults are BERT-base's values."""
    architecture: ClassVar[str]  # name of the architecture, in `architectures.ARCHITECTURES`
    # Named sizes, with the fields that they set; none if there is no encoder to train.
    sizes: ClassVar[Mapping[str, Mapping[str, int]]] = {}
    # Whether layers of the decoder normalize their input, and a last norm precedes the output. Otherwise they normalize
    # their output, and the masked-token head's transform precedes the output.
    norm_first: ClassVar[bool] = False
    # Whether a decoder can have its layers, as BERT's can.
    decodes: ClassVar[bool] = True

    vocab_size: int  # tokens in the vocabulary, V before padding
    num_layers: int = 12  # L
    width: int = 768  # D
    num_heads: int = 12  # N; a head is H = D / N wide
    feed_forward: int = 3072  # F
    max_positions: int = 512  # number of learned positions, the longest segment
    token_types: int = 0  # number of token types, such as first and second sentence; 0 without
    dropout: float = 0.1  # rate on embeddings and on both outputs of a layer
    attention_dropout: float = 0.1  # rate on the attention probabilities
    layer_norm_epsilon: float = 1e-12  # added to the variance under the root
    initializer_range: float = 0.02  # standard deviation of initial kernels and embeddings

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

    @property
    def attention_specs(self) -> tuple[AttentionSpec, ...]:
        """Settings of self-attention of all kinds of layers."""
        return (self.attention_spec,)

    @property
    def rotary_positions(self) -> bool:
        """Whether attention rotates queries and keys by their positions."""
        return False

    @property
    def norm_bias(self) -> bool:
        """Whether layer norms have biases."""
        return True

    @property
    def head_bias(self) -> bool:
        """Whether the projection in the transform of prediction heads has a bias."""
        return True

    @property
    def head_dropout(self) -> float:
        """Dropout rate before a classifier."""
        return self.dropout

    def kernel_init(self, residual: bool) -> nn.initializers.Initializer:
        """The distribution of initial kernels and embeddings; `residual` if outputs are added to the hidden states."""
        return nn.initializers.normal(self.initializer_range)

    def activation(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The activation of feed-forward layers."""
        return gelu(x)

    def make_encoder(self, compute: ComputeConfig) -> nn.Module:
        """The encoder.

        It is called as (tokens, segments, token_types, *, deterministic, positions=None), all [B, S], and returns
        hidden states [B, S, D]; its method `token_embedding()` returns the `layers.Embed` of tokens.

        Raises:
          ValueError: the architecture has no encoder.
        """
        raise ValueError(f"architecture {self.architecture!r} has no encoder")

    def make_pooler(self, compute: ComputeConfig) -> nn.Module | None:
        """Makes the vector of a text for heads that read it; None for BERT's, `heads.Pooler`, and called like that."""
        return None

    def make_position_transform(self, compute: ComputeConfig) -> nn.Module | None:
        """What hidden states go through before a classifier of positions, [B, S, D] -> [B, S, D]; None for nothing."""
        return None

    def layer_multiply_adds(self, length: int) -> int:
        """Multiplications of the matrix products of one layer, for a row of `length` tokens."""
        projections = 4 * self.width * self.width + 2 * self.width * self.feed_forward
        return length * projections + 2 * length * length * self.width

    def encoder_multiply_adds(self, length: int) -> int:
        """The same for all layers."""
        return self.num_layers * self.layer_multiply_adds(length)
