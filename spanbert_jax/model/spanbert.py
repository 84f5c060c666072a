"""The encoder with the heads that it is pretrained with."""
from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from spanbert_jax.model.config import ModelConfig
from spanbert_jax.model.encoder import Encoder
from spanbert_jax.model.heads import BoundaryHead, MaskedTokenHead, classifier, gather, pool, pooler


class PretrainingLogits(NamedTuple):
    """Float32 logits; a head that the network lacks gives None.

    Attributes:
      masked: [B, M, V] from the masked positions' own states. V is the padded vocabulary.
      boundary: [B, M, V] from the boundaries of the spans that the positions lie in.
      next_sentence: [B, 2]; class 0 is the continuation.
    """
    masked: jax.Array
    boundary: jax.Array | None
    next_sentence: jax.Array | None


class SpanBert(nn.Module):
    """SpanBERT for pretraining. The heads run at the M masked positions of a row and nowhere else."""
    config: ModelConfig

    @property
    def smallest_inputs(self) -> dict[str, jax.Array | bool]:
        """What the parameters can be initialised with."""
        one, zero = jnp.ones((1, 1), jnp.int32), jnp.zeros((1, 1), jnp.int32)
        return dict(tokens=one, segments=one, token_types=zero, positions=zero, left=zero, right=zero, place=zero,
                    deterministic=True)

    def setup(self):
        self.encoder = Encoder(self.config)
        self.masked_token_head = MaskedTokenHead(self.config)
        if self.config.boundary_head:
            self.boundary_head = BoundaryHead(self.config)
        if self.config.next_sentence_head:
            self.pooler = pooler(self.config)
            self.next_sentence_head = classifier(self.config, 2)

    def __call__(self, tokens: jax.Array, segments: jax.Array, token_types: jax.Array, *, positions: jax.Array,
                 left: jax.Array, right: jax.Array, place: jax.Array, deterministic: bool) -> PretrainingLogits:
        """Logits of every head.

        Args:
          tokens: [B, S] corrupted piece ids.
          segments: [B, S], 0 for padding; attention and positions stay inside a segment.
          token_types: [B, S].
          positions: [B, M] the masked positions.
          left: [B, M] position of the token before the span that each masked position lies in.
          right: [B, M] position of the token after it.
          place: [B, M] index in the span.
          deterministic: without dropout.
        """
        hidden = self.encoder(tokens, segments, token_types, deterministic=deterministic)
        pieces = self.encoder.pieces()
        boundary = next_sentence = None
        masked = self.masked_token_head(gather(hidden, positions), pieces)
        if self.config.boundary_head:
            boundary = self.boundary_head(gather(hidden, left), gather(hidden, right), place, pieces)
        if self.config.next_sentence_head:
            next_sentence = self.next_sentence_head(pool(self.pooler, hidden)).astype(jnp.float32)
        return PretrainingLogits(masked, boundary, next_sentence)
