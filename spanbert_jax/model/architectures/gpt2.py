"""GPT-2 as a decoder: pre-norm layers, GELU by a hyperbolic tangent, no token types (Radford et al., 2019)."""
from __future__ import annotations

import dataclasses

from spanbert_jax.model.architectures import Architecture, DecoderStyle
from spanbert_jax.model.architectures.bert import layer_multiply_adds
from spanbert_jax.model.config import ModelConfig
from spanbert_jax.model.functions import tanh_gelu


@dataclasses.dataclass(frozen=True)
class Gpt2Config(ModelConfig):
    """A GPT-2."""
    architecture = "gpt2"

    layer_norm_epsilon: float = 1e-5


GPT2 = Architecture(Gpt2Config, layer_multiply_adds, decoder=DecoderStyle(norm_first=True, activation=tanh_gelu))
