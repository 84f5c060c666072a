"""Architectures, one file each: what the layers of a model are.

A further one is one file with an `Architecture` and a name in `ARCHITECTURES`. Heads, pretraining, fine-tuning and
planning take whatever architecture a config belongs to.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax

from spanbert_jax.common.registry import Registry
from spanbert_jax.model.config import ComputeConfig, ModelConfig


@dataclasses.dataclass(frozen=True)
class DecoderStyle:
    """How `decoder.Decoder` builds a decoder of an architecture.

    Attributes:
      norm_first: layers normalize their input, and a last norm precedes the output; else layers normalize their
        output, and the masked-token head's transform precedes the output.
      activation: of the feed-forward layers.
    """
    norm_first: bool
    activation: Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """An architecture.

    Attributes:
      config: its config, with its named sizes.
      layer_multiply_adds: from (config, tokens in a row S) to the multiplications of the matrix products of one layer.
      encoder: module (config, compute), called as (tokens, segments, token_types, *, deterministic, positions=None),
        all [B, S], which returns hidden states [B, S, D]; `token_embedding()` returns its `layers.Embed` of tokens.
        None if it has no encoder.
      decoder: how its decoder is built; None if it has none.
    """
    config: type[ModelConfig]
    layer_multiply_adds: Callable[..., int]
    encoder: type[nn.Module] | None = None
    decoder: DecoderStyle | None = None


_HERE = "spanbert_jax.model.architectures"
ARCHITECTURES: Registry[Architecture] = Registry("architecture", "architectures", {
    "bert": f"{_HERE}.bert:BERT", "gpt2": f"{_HERE}.gpt2:GPT2"})


def make_encoder(config: ModelConfig, compute: ComputeConfig) -> nn.Module:
    """The encoder of a config.

    Raises:
      ValueError: its architecture has no encoder.
    """
    encoder = ARCHITECTURES.get(config.architecture).encoder
    if encoder is None:
        raise ValueError(f"architecture {config.architecture!r} has no encoder")
    return encoder(config, compute)


def decoder_style(config: ModelConfig) -> DecoderStyle:
    """How the decoder of a config is built.

    Raises:
      ValueError: its architecture has no decoder.
    """
    style = ARCHITECTURES.get(config.architecture).decoder
    if style is None:
        raise ValueError(f"architecture {config.architecture!r} has no decoder")
    return style
