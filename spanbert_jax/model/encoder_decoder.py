"""An encoder and a decoder that attends to it: a network that writes."""
from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from spanbert_jax.model.config import DecoderConfig, ModelConfig
from spanbert_jax.model.decoder import Decoder
from spanbert_jax.model.encoder import Encoder, position_ids
from spanbert_jax.model.layers import Dense


class EncoderDecoder(nn.Module):
    """Reads a source and says what comes next in a target.

    Attributes:
      config: of the encoder.
      decoder_config: of the decoder.
      shared: whether the decoder has the encoder's embeddings and layers, with attention to the encoder and an output
        of its own (Rothe et al., 2020: BERTShare). Its parameters are then stored once, with the encoder; `complete`
        gives the tree that the network itself takes.
    """
    config: ModelConfig
    decoder_config: DecoderConfig
    shared: bool = False

    @property
    def smallest_inputs(self) -> dict[str, jax.Array]:
        """What the parameters can be initialised with."""
        one = jnp.ones((1, 1), jnp.int32)
        return dict(tokens=one, segments=one, targets=one, target_segments=one)

    def setup(self):
        self.encoder, self.decoder = Encoder(self.config), Decoder(self.decoder_config)
        if self.config.width != self.decoder_config.width:
            self.bridge = Dense(self.decoder_config, self.decoder_config.width, ("embed", None))

    def encode(self, tokens: jax.Array, segments: jax.Array, *, deterministic: bool = True) -> jax.Array:
        """What the decoder attends to. [B, S] pieces and segments, 0 for padding -> [B, S, D]."""
        positions = jnp.minimum(position_ids(segments), self.config.max_positions - 1)
        memory = self.encoder(tokens, segments, 0 * tokens, positions=positions, deterministic=deterministic)
        return self.bridge(memory) if self.config.width != self.decoder_config.width else memory

    def __call__(self, tokens: jax.Array, segments: jax.Array, targets: jax.Array, target_segments: jax.Array, *,
                 deterministic: bool = True) -> jax.Array:
        """What follows each piece of targets that are known.

        Args:
          tokens, segments: [B, S] pieces of the sources, and the number of each piece's text in its row, 0 for padding.
          targets, target_segments: [B, T] of the targets, each beginning with the piece that begins every target.

        Returns:
          [B, T, V] float32.
        """
        memory = self.encode(tokens, segments, deterministic=deterministic)
        hidden = self.decoder(targets, target_segments, memory, segments, deterministic=deterministic)
        return self.decoder.logits(hidden)[..., :self.decoder_config.vocab_size]


def complete(params: Any) -> Any:
    """Parameters as the network takes them: those that a decoder shares with its encoder are there a second time."""
    encoder, decoder = params["encoder"], params["decoder"]
    if "embeddings" in decoder:
        return params
    layers = {**encoder["layers"], **decoder["layers"]}
    return {**params, "decoder": {**decoder, "embeddings": encoder["embeddings"], "layers": layers}}


def without_shared(params: Any) -> Any:
    """The parameters that are stored where a decoder shares those of its encoder."""
    decoder = {name: part for name, part in params["decoder"].items() if name != "embeddings"}
    own = {name: part for name, part in decoder["layers"].items() if name not in params["encoder"]["layers"]}
    return {**params, "decoder": {**decoder, "layers": own}}
