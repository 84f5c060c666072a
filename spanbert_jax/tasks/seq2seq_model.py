"""Encoder-decoder models of tasks that generate text, and their initial parameters."""
from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop import weights
from spanbert_jax.interop.continuation import initial_params as adapted_params
from spanbert_jax.interop.encoder_decoder import open_decoder
from spanbert_jax.interop.layout import build
from spanbert_jax.interop.pretrained import open_pretrained
from spanbert_jax.model import ComputeConfig, Decoder, EncoderDecoder, EncoderModel, ModelConfig, split_tied_params

if TYPE_CHECKING:
    from spanbert_jax.tasks.seq2seq import Seq2SeqSettings

# Initial decoders besides directories of decoders.
DECODERS = ("encoder", "shared", "random")


def build_model(encoder: ModelConfig, compute: ComputeConfig, settings: Seq2SeqSettings,
                target_tokenizer: Tokenizer) -> EncoderDecoder:
    """The encoder with the decoder that the settings ask for.

    Raises:
      UserError: the decoder has too few positions or layers, or another vocabulary than its tokenizer.
    """
    kind, wanted = settings.decoder, settings.decoder_layers
    size = target_tokenizer.get_vocab_size()
    if kind in DECODERS:
        decoder = dataclasses.replace(encoder, vocab_size=size)
    else:
        decoder, *_ = open_decoder(kind, encoder.width)
        if size > decoder.vocab_size:
            raise UserError(f"config.task.decoder={kind!r}: its tokenizer has {size:,} tokens and its model "
                            f"{decoder.vocab_size:,}; they do not belong together")
        decoder = dataclasses.replace(decoder, dropout=encoder.dropout, attention_dropout=encoder.attention_dropout)
    if wanted > decoder.num_layers or (wanted and kind == "shared"):
        raise UserError(f"config.task.decoder_layers={wanted}: the decoder has {decoder.num_layers}; use fewer, or 0 "
                        f"for all{', as required with decoder=shared' * (kind == 'shared')}")
    if settings.target_length > decoder.max_positions:
        raise UserError(f"config.task.target_length={settings.target_length}: the decoder has "
                        f"{decoder.max_positions} positions; use at most that many")
    decoder = dataclasses.replace(decoder, num_layers=wanted or decoder.num_layers)
    return EncoderDecoder(encoder, decoder, kind == "shared", compute)


def initial_params(model: EncoderDecoder, kind: str, init_from: str, tokenizer: Tokenizer, target_tokenizer: Tokenizer,
                   seed: int) -> dict[str, Any]:
    """Initial float32 parameters on the host; new ones are logged.

    As in Rothe et al. (2020), parameters that encoder and decoder have in common come from the encoder, and the
    cross-attention is new.

    Args:
      kind: the setting `decoder`.
    """
    pretrained, decoder = open_pretrained(init_from), Decoder(model.decoder_config)
    encoder = adapted_params(pretrained, EncoderModel(model.config), tokenizer, seed)["encoder"]
    bridge: Mapping[str, Any] | None = None
    if kind in ("encoder", "shared"):
        own = adapted_params(pretrained, decoder, target_tokenizer, seed)
    elif kind == "random":
        random = np.random.default_rng(seed)
        own = build(decoder, lambda leaf: weights.fresh(leaf, decoder.config.initializer_range, random))
    else:
        _, tensors, bridge = open_decoder(kind, model.config.width)
        own = weights.load(decoder, tensors, seed)
    params = {"encoder": encoder, "decoder": own}
    if model.config.width != model.decoder_config.width:
        params["bridge"] = bridge or _random_bridge(model.config.width, model.decoder_config, seed)
    return split_tied_params(params) if model.shared else params


def _random_bridge(width: int, decoder: ModelConfig, seed: int) -> Mapping[str, np.ndarray]:
    """The projection from the encoder's width to the decoder's."""
    kernel = np.random.default_rng(seed).standard_normal((width, decoder.width), np.float32)
    return {"kernel": kernel * np.float32(decoder.initializer_range), "bias": np.zeros(decoder.width, np.float32)}
