"""GPT-2 as a decoder: pre-norm layers, GELU by a hyperbolic tangent, no token types (Radford et al., 2019)."""
import dataclasses

import jax

from spanbert_jax.model.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Gpt2Config(ModelConfig):
    """A GPT-2."""
    architecture = "gpt2"
    norm_first = True

    layer_norm_epsilon: float = 1e-5

    def activation(self, x: jax.Array) -> jax.Array:
        return jax.nn.gelu(x, approximate=True)
