"""The encoder with one head at every position, called as Hugging Face's models are."""
from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from spanbert_jax.model.config import ModelConfig
from spanbert_jax.model.dropout import drop, seed_from
from spanbert_jax.model.encoder import Encoder, position_ids
from spanbert_jax.model.heads import BoundaryHead, MaskedTokenHead, classifier, gather, pool, pooler

HEADS = (None, "pretraining", "masked_lm", "question_answering", "sequence_classification", "token_classification")
DEFAULT_LABELS = ("LABEL_0", "LABEL_1")


class Outputs(NamedTuple):
    """What a model gives; None what its head does not have. Logits are float32.

    Attributes:
      last_hidden_state: [B, S, D] in the compute dtype.
      pooler_output: [B, D], of a network with a pooler; [B, K, D] of rows of several texts.
      logits: [B, S, V] of "pretraining" and "masked_lm", [B, T, V] of a decoder, [B, labels] of
        "sequence_classification" ([B, K, labels] of rows of several texts), [B, S, labels] of "token_classification".
      next_sentence_logits: [B, 2] of "pretraining" where there is such a head; class 0 is the continuation.
      start_logits, end_logits: [B, S] of "question_answering".
    """
    last_hidden_state: jax.Array | None = None
    pooler_output: jax.Array | None = None
    logits: jax.Array | None = None
    next_sentence_logits: jax.Array | None = None
    start_logits: jax.Array | None = None
    end_logits: jax.Array | None = None


class EncoderModel(nn.Module):
    """An encoder and one of `HEADS`, with the parameters of `SpanBert` where both have them.

    Attributes:
      config: its `pooler` counts without a head, its heads count for "pretraining".
      head: one of `HEADS`.
      labels: names of the classes of a classification head.
    """
    config: ModelConfig
    head: str | None = None
    labels: tuple[str, ...] = DEFAULT_LABELS

    @property
    def has_pooler(self) -> bool:
        """Whether there is a pooler."""
        by_head = {None: self.config.pooler, "pretraining": self.config.next_sentence_head}
        return by_head.get(self.head, self.head == "sequence_classification")

    @property
    def smallest_inputs(self) -> dict[str, jax.Array]:
        """What the parameters can be initialised with."""
        return {"input_ids": jnp.ones((1, 1), jnp.int32)}

    def setup(self):
        config, head = self.config, self.head
        if head not in HEADS:
            raise ValueError(f"head={head!r}: allowed are {', '.join(map(repr, HEADS))}")
        self.encoder = Encoder(config)
        if self.has_pooler:
            self.pooler = pooler(config)
        if head in ("pretraining", "masked_lm"):
            self.masked_token_head = MaskedTokenHead(config)
        if head == "pretraining" and config.boundary_head:
            self.boundary_head = BoundaryHead(config)
        if head == "pretraining" and config.next_sentence_head:
            self.next_sentence_head = classifier(config, 2)
        if head == "question_answering":
            self.question_answering_head = classifier(config, 2)
        if head in ("sequence_classification", "token_classification"):
            self.classification_head = classifier(config, len(self.labels))

    def __call__(self, input_ids: jax.Array, attention_mask: jax.Array | None = None,
                 token_type_ids: jax.Array | None = None, deterministic: bool = True,
                 first: jax.Array | None = None) -> Outputs:
        """Hidden states and what the head makes of them.

        Args:
          input_ids: [B, S] piece ids, S at most `config.max_positions`.
          attention_mask: [B, S], 0 where nobody is to look; all 1 if not given. Positions are counted from the start of
            the row whatever is masked. With `first`, the numbers of the texts: 0 for padding, k + 1 in text k.
          token_type_ids: [B, S], 0 or 1; all 0 if not given.
          deterministic: without dropout; with it, give `rngs={"dropout": key}`.
          first: [B, K] where each text begins, of rows of several texts: none looks into another, and each has its own
            positions from 0 on. A row of them may be longer than `config.max_positions`, its texts may not.

        Raises:
          ValueError: when S is larger than the table of positions.
        """
        ones = jnp.ones_like(input_ids)
        token_types = 0 * ones if token_type_ids is None else token_type_ids
        if first is not None:
            # Padding counts on from the last text, and may run out of the table, where a look-up gives NaN.
            segments, most = attention_mask, self.config.max_positions - 1
            positions = jnp.minimum(position_ids(segments), most)
        elif input_ids.shape[1] > self.config.max_positions:
            raise ValueError(f"rows of {input_ids.shape[1]} positions: the network has {self.config.max_positions}")
        else:
            segments = ones if attention_mask is None else (attention_mask != 0).astype(ones.dtype)
            positions = jnp.broadcast_to(jnp.arange(input_ids.shape[1], dtype=jnp.int32), input_ids.shape)
        hidden = self.encoder(input_ids, segments, token_types, positions=positions, deterministic=deterministic)
        pooled = pool(self.pooler, hidden, first) if self.has_pooler else None
        return Outputs(hidden, pooled, **self._head(hidden, pooled, deterministic))

    def _head(self, hidden: jax.Array, pooled: jax.Array | None, deterministic: bool) -> dict[str, jax.Array]:
        outputs, seed = {}, None if deterministic else seed_from(self.make_rng("dropout"))
        if self.head in ("pretraining", "masked_lm"):
            logits = self.masked_token_head(hidden, self.encoder.pieces())
            outputs["logits"] = logits[..., :self.config.vocab_size]
        if self.head == "pretraining" and self.config.next_sentence_head:
            outputs["next_sentence_logits"] = self.next_sentence_head(pooled)
        if self.head == "pretraining" and self.config.boundary_head and self.is_initializing():
            nowhere = jnp.zeros((hidden.shape[0], 1), jnp.int32)
            self.boundary_logits(hidden, nowhere, nowhere, nowhere)
        if self.head == "question_answering":
            logits = self.question_answering_head(hidden)
            outputs |= {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}
        if self.head == "sequence_classification":
            outputs["logits"] = self.classification_head(drop(pooled, seed, self.config.dropout))
        if self.head == "token_classification":
            outputs["logits"] = self.classification_head(drop(hidden, seed, self.config.dropout))
        return {name: logits.astype(jnp.float32) for name, logits in outputs.items()}

    def boundary_logits(self, hidden: jax.Array, left: jax.Array, right: jax.Array, place: jax.Array) -> jax.Array:
        """What the boundary head predicts inside spans; a method for `model.apply(..., method=...)`.

        Args:
          hidden: [B, S, D], the last hidden state.
          left, right: [B, M] positions of the tokens before and after the span that each prediction lies in.
          place: [B, M] index in the span, below `config.boundary_positions`.

        Returns:
          [B, M, V] float32.
        """
        logits = self.boundary_head(gather(hidden, left), gather(hidden, right), place, self.encoder.pieces())
        return logits[..., :self.config.vocab_size]
