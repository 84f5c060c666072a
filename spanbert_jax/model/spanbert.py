"""The model of pretraining: an encoder with the pretraining heads at masked positions."""
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float32, Integer

from spanbert_jax.model.encoder_model import EncoderModel
from spanbert_jax.model.heads import gather
from spanbert_jax.model.heads.pretraining import PretrainingHeads


class PretrainingLogits(NamedTuple):
    """Logits of the pretraining heads; None for a head that the model lacks. V is the padded vocabulary."""
    masked: Float32[Array, "B M V"]  # of the masked-token head
    boundary: Float32[Array, "B M V"] | None  # of the boundary head, for the same tokens
    next_sentence: Float32[Array, "B 2"] | None  # class 0 means that the second text continues the first


class SpanBert(EncoderModel):
    """An encoder with the pretraining heads, which run only at the M masked positions of a row."""
    head: PretrainingHeads = PretrainingHeads()

    @property
    def dummy_inputs(self) -> dict[str, Any]:
        one, zero = jnp.ones((1, 1), jnp.int32), jnp.zeros((1, 1), jnp.int32)
        return dict(tokens=one, segments=one, token_types=zero, positions=zero, left=zero, right=zero, place=zero)

    def __call__(self, tokens: Integer[Array, "B S"],  # type: ignore[override]  # other inputs and outputs
                 segments: Integer[Array, "B S"], token_types: Integer[Array, "B S"], *,
                 positions: Integer[Array, "B M"], left: Integer[Array, "B M"], right: Integer[Array, "B M"],
                 place: Integer[Array, "B M"], deterministic: bool = True) -> PretrainingLogits:
        """Logits of every head.

        Args:
          tokens: corrupted token ids.
          segments: 0 for padding; attention and positions stay inside a segment.
          token_types: below `config.token_types`.
          positions: the masked positions.
          left, right: positions of the tokens before and after the span of each masked position.
          place: index in the span.
        """
        hidden = self.encoder(tokens, segments, token_types, deterministic=deterministic)
        embedding = self.encoder.token_embedding()
        boundary = next_sentence = None
        masked = self.masked_token_head(gather(hidden, positions), embedding)
        if self.head.boundary:
            boundary = self.boundary_head(gather(hidden, left), gather(hidden, right), place, embedding)
        if self.head.next_sentence:
            next_sentence = self.next_sentence_head(self.pooler(hidden, segments)).astype(jnp.float32)
        return PretrainingLogits(masked, boundary, next_sentence)
