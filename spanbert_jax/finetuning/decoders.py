"""Decoders for encoders: what they are, and what their parameters begin with."""
from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.finetuning.config import FinetuningConfig
from spanbert_jax.interop import weights
from spanbert_jax.interop.continuation import initial_params
from spanbert_jax.interop.encoder_decoder import open_decoder
from spanbert_jax.interop.layout import build
from spanbert_jax.interop.pretrained import open_pretrained
from spanbert_jax.model import Decoder, DecoderConfig, EncoderDecoder, EncoderModel, ModelConfig, without_shared
from spanbert_jax.tasks.seq2seq import DECODERS, Seq2SeqTask


def with_decoder(network: ModelConfig, task: Seq2SeqTask, tokenizer: Tokenizer) -> EncoderDecoder:
    """The network that a task of writing asks for.

    Args:
      network: the encoder.
      tokenizer: of what is read.

    Raises:
      UserError: when it has too few positions, or its parts do not go together.
    """
    kind, wanted = task.settings["decoder"], task.settings["decoder_layers"]
    pieces = task.target_tokenizer(tokenizer).get_vocab_size()
    if kind in DECODERS:
        decoder = DecoderConfig.of(network, vocab_size=pieces)
    else:
        decoder, *_ = open_decoder(kind, network.width, network.dtype)
        if pieces > decoder.vocab_size:
            raise UserError(f"config.task.decoder={kind!r}: its tokenizer has {pieces:,} pieces and its network "
                            f"{decoder.vocab_size:,}; they are not of one model")
        decoder = dataclasses.replace(decoder, layers=network.layers, remat=network.remat, dropout=network.dropout,
                                      attention_dropout=network.attention_dropout,
                                      gradient_dtype=network.gradient_dtype)
    decoder = dataclasses.replace(decoder, attention=ModelConfig.attention)
    if wanted > decoder.num_layers or wanted and kind == "shared":
        raise UserError(f"config.task.decoder_layers={wanted}: the decoder has {decoder.num_layers}; take fewer, or 0 "
                        f"for all{', as where it is shared' * (kind == 'shared')}")
    if task.settings["target_length"] > decoder.max_positions:
        raise UserError(f"config.task.target_length={task.settings['target_length']}: the decoder has "
                        f"{decoder.max_positions} positions; take at most so many")
    decoder = dataclasses.replace(decoder, num_layers=wanted or decoder.num_layers)
    return EncoderDecoder(network, decoder, shared=kind == "shared")


def writing_params(config: FinetuningConfig, model: EncoderDecoder, task: Seq2SeqTask,
                   tokenizer: Tokenizer) -> dict[str, Any]:
    """What the parameters of an encoder with a decoder begin with, in float32 on the host; the log says what is new.

    As in Rothe et al. (2020): whatever the encoder has too comes from it, and attention to the encoder is new.
    """
    pretrained, decoder = open_pretrained(config.init_from), Decoder(model.decoder_config)
    encoder = initial_params(pretrained, EncoderModel(model.config), tokenizer, config.seed)["encoder"]
    kind, bridge = task.settings["decoder"], None
    if kind in ("encoder", "shared"):
        own = initial_params(pretrained, decoder, task.target_tokenizer(tokenizer), config.seed)
    elif kind == "random":
        own = _fresh(decoder, config.seed)
    else:
        _, tensors, bridge = open_decoder(kind, model.config.width, model.config.dtype)
        own = weights.load(decoder, tensors, config.seed)
    params = {"encoder": encoder, "decoder": own}
    if model.config.width != model.decoder_config.width:
        params["bridge"] = bridge or _bridge(model.config.width, model.decoder_config, config.seed)
    return without_shared(params) if model.shared else params


def _fresh(decoder: Decoder, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return build(decoder, lambda leaf: weights.fresh(leaf, decoder.config.initializer_range, random))


def _bridge(width: int, decoder: DecoderConfig, seed: int) -> Mapping[str, np.ndarray]:
    kernel = np.random.default_rng(seed).standard_normal((width, decoder.width), np.float32)
    return {"kernel": kernel * np.float32(decoder.initializer_range), "bias": np.zeros(decoder.width, np.float32)}
