"""An encoder and a decoder that attends to it."""
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Integer

from spanbert_jax.model.config import ComputeConfig, ModelConfig
from spanbert_jax.model.decoder import Decoder
from spanbert_jax.model.layers import Dense, position_ids


class EncoderDecoder(nn.Module):
    """Reads a source and predicts the next tokens of a target."""
    config: ModelConfig  # of the encoder
    decoder_config: ModelConfig  # of the decoder
    # Whether the decoder shares the encoder's embeddings and layers, with its own attention to the encoder and its own
    # output (Rothe et al., 2020: BERTShare). Shared parameters are stored once, with the encoder; `merge_tied_params`
    # makes the tree that `apply` takes.
    shared: bool = False
    compute: ComputeConfig = ComputeConfig()  # how both are computed; the decoder's attention is always plain

    @property
    def dummy_inputs(self) -> dict[str, jax.Array]:
        """The smallest inputs, for `init`."""
        one = jnp.ones((1, 1), jnp.int32)
        return dict(tokens=one, segments=one, targets=one, target_segments=one)

    @property
    def has_bridge(self) -> bool:
        """Whether a projection adapts the encoder's width to the decoder's."""
        return self.config.width != self.decoder_config.width

    def setup(self) -> None:
        self.encoder = self.config.make_encoder(self.compute)
        self.decoder = Decoder(self.decoder_config, self.compute)
        if self.has_bridge:
            self.bridge = Dense(self.decoder_config, self.compute, self.decoder_config.width, ("embed", None))

    def encode(self, tokens: Integer[Array, "B S"], segments: Integer[Array, "B S"], *,
               deterministic: bool = True) -> Float[Array, "B S D"]:
        """The hidden states that the decoder attends to, in its width. `segments` is 0 for padding."""
        positions = jnp.minimum(position_ids(segments), self.config.max_positions - 1)
        memory = self.encoder(tokens, segments, 0 * tokens, positions=positions, deterministic=deterministic)
        return self.bridge(memory) if self.has_bridge else memory

    def __call__(self, tokens: Integer[Array, "B S"], segments: Integer[Array, "B S"], targets: Integer[Array, "B T"],
                 target_segments: Integer[Array, "B T"], *, deterministic: bool = True) -> Float32[Array, "B T V"]:
        """Logits of the token after each token of known targets.

        Args:
          tokens, segments: ids of the sources, and the number of each token's text in its row, 0 for padding.
          targets, target_segments: the same for the targets, each with its start token.
        """
        memory = self.encode(tokens, segments, deterministic=deterministic)
        hidden = self.decoder(targets, target_segments, memory, segments, deterministic=deterministic)
        return self.decoder.logits(hidden)[..., :self.decoder_config.vocab_size]


def merge_tied_params(params: Any) -> Any:
    """Parameters for `apply`, from stored ones: what the decoder shares with the encoder is in both places.

    Parameters of a decoder that shares nothing are returned unchanged.
    """
    encoder, decoder = params["encoder"], params["decoder"]
    if "embeddings" in decoder:
        return params
    layers = {**encoder["layers"], **decoder["layers"]}
    return {**params, "decoder": {**decoder, "embeddings": encoder["embeddings"], "layers": layers}}


def split_tied_params(params: Any) -> Any:
    """Parameters to store, from those for `apply`: what the decoder shares with the encoder is there once."""
    decoder = {name: part for name, part in params["decoder"].items() if name != "embeddings"}
    own = {name: part for name, part in decoder["layers"].items() if name not in params["encoder"]["layers"]}
    return {**params, "decoder": {**decoder, "layers": own}}
