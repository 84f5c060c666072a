"""An encoder with one head, called as Hugging Face's models are."""
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Integer

from spanbert_jax.model.config import ComputeConfig, ModelConfig
from spanbert_jax.model.dropout import seed_from
from spanbert_jax.model.heads import POOLED, EncoderOnly, Head, gather, make_pooler
from spanbert_jax.model.layers import position_ids


class Outputs(NamedTuple):
    """The outputs of a model; None for those that its head does not have. Logits are float32."""
    last_hidden_state: jax.Array | None = None  # [B, S, D] in the activation dtype
    pooler_output: jax.Array | None = None  # [B, D] of a model with a pooler; [B, K, D] for rows of K texts
    # [B, S, V] of masked tokens, [B, T, V] of a decoder, [B, labels] of sequence classification ([B, K, labels] for
    # rows of K texts), [B, S, labels] of token classification.
    logits: jax.Array | None = None
    next_sentence_logits: jax.Array | None = None  # [B, 2]; class 0 means that the second text continues the first
    start_logits: jax.Array | None = None  # [B, S] of question answering
    end_logits: jax.Array | None = None  # [B, S] of question answering


class EncoderModel(nn.Module):
    """An encoder with a head; parameters that `SpanBert` has too have the same names."""
    config: ModelConfig  # of the architecture
    head: Head = EncoderOnly()  # what it predicts; only hidden states by default
    compute: ComputeConfig = ComputeConfig()  # how it is computed

    @property
    def dummy_inputs(self) -> dict[str, Any]:
        """The smallest inputs, for `init`."""
        return {"input_ids": jnp.ones((1, 1), jnp.int32)}

    def setup(self) -> None:
        self.encoder = self.config.make_encoder(self.compute)
        if POOLED in self.head.inputs:
            self.pooler = make_pooler(self.config, self.compute)
        for name, module in self.head.modules(self.config, self.compute).items():
            setattr(self, name, module)

    def __call__(self, input_ids: Integer[Array, "B S"], attention_mask: Integer[Array, "B S"] | None = None,
                 token_type_ids: Integer[Array, "B S"] | None = None, deterministic: bool = True,
                 first: Integer[Array, "B K"] | None = None) -> Outputs:
        """Hidden states and the outputs of the head.

        Args:
          input_ids: token ids; S is at most `config.max_positions`.
          attention_mask: 0 at padding, which no token attends to; all 1 if not given. Positions are counted from the
            start of the row. With `first`, the number of each token's text: 0 for padding, k + 1 in text k.
          token_type_ids: below `config.token_types`; all 0 if not given.
          deterministic: without dropout; with it, give `rngs={"dropout": key}`.
          first: where the K texts of a row start. No text attends to another, and each has its own positions from 0 on.
            Such a row may be longer than `config.max_positions`, its texts may not.

        Raises:
          ValueError: a row is longer than `config.max_positions`.
        """
        ones = jnp.ones_like(input_ids)
        token_types = 0 * ones if token_type_ids is None else token_type_ids
        if first is not None:
            # Padding continues the positions of the last text and may exceed the last one, where a look-up gives NaN.
            assert attention_mask is not None, "it gives the text of each token"
            segments, last = attention_mask, self.config.max_positions - 1
            positions = jnp.minimum(position_ids(segments), last)
        elif input_ids.shape[1] > self.config.max_positions:
            raise ValueError(f"rows of {input_ids.shape[1]} positions: the model has {self.config.max_positions}")
        else:
            segments = ones if attention_mask is None else (attention_mask != 0).astype(ones.dtype)
            positions = jnp.broadcast_to(jnp.arange(input_ids.shape[1], dtype=jnp.int32), input_ids.shape)
        hidden = self.encoder(input_ids, segments, token_types, positions=positions, deterministic=deterministic)
        pooled = self.pooler(hidden, segments, first) if POOLED in self.head.inputs else None
        seed = None if deterministic else seed_from(self.make_rng("dropout"))
        outputs = {name: logits.astype(jnp.float32) for name, logits in self.head(self, hidden, pooled, seed).items()}
        return Outputs(hidden, pooled, **outputs)

    def boundary_logits(self, hidden: Float[Array, "B S D"], left: Integer[Array, "B M"], right: Integer[Array, "B M"],
                        place: Integer[Array, "B M"]) -> Float32[Array, "B M V"]:
        """Logits of the boundary head inside spans; a method for `model.apply(..., method="boundary_logits")`.

        Args:
          hidden: last hidden states.
          left, right: positions of the tokens before and after the span of each prediction.
          place: index in the span, below `head.boundary_positions`.
        """
        embedding = self.encoder.token_embedding()
        logits = self.boundary_head(gather(hidden, left), gather(hidden, right), place, embedding)
        return logits[..., :self.config.vocab_size]
