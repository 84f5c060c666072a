"""BERT: learned positions, post-norm layers, GELU by the error function (Devlin et al., 2019)."""
from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Integer, UInt32

from spanbert_jax.common.settings import setting
from spanbert_jax.model.attention import AttentionSpec
from spanbert_jax.model.attention.self_attention import SelfAttention
from spanbert_jax.model.config import ComputeConfig, ModelConfig
from spanbert_jax.model.dropout import drop, split_seed
from spanbert_jax.model.layers import Embed, Embeddings, LayerNorm, feed_forward, layer_seeds, position_ids, stack


@dataclasses.dataclass(frozen=True)
class BertConfig(ModelConfig):
    """A BERT."""
    architecture = "bert"
    # Heads are 64 wide and the feed-forward width is 4 D, as in BERT.
    sizes: ClassVar[Mapping[str, Mapping[str, int]]] = {
        name: dict(num_layers=layers, width=64 * heads, num_heads=heads, feed_forward=256 * heads)
        for name, layers, heads in (("tiny", 2, 2), ("mini", 4, 4), ("small", 4, 8), ("medium", 8, 8),
                                    ("base", 12, 12), ("large", 24, 16))}

    token_types: int = setting(2, "Rows of the token type embedding; with one, both texts of a pair have it, as in "
                               "RoBERTa.", minimum=1)
    clamp_attention: bool = setting(False, "Clip attention scores to +-10,000 before masking, as the reference does "
                                    "for its large model.", overridable=True)

    @property
    def attention_spec(self) -> AttentionSpec:
        return super().attention_spec._replace(clamp=self.clamp_attention)

    def make_encoder(self, compute: ComputeConfig) -> BertEncoder:
        return BertEncoder(self, compute)


class BertLayer(nn.Module):
    """Attention and feed-forward, each added to its input and normalized. [B, S, D] -> [B, S, D]."""
    config: BertConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"], segments: Integer[Array, "B S"],
                 seed: UInt32[Array, " 2"] | None) -> tuple[Float[Array, "B S D"], None]:
        """The next hidden states. `seed` is the dropout seed; None without dropout."""
        config, compute, rate = self.config, self.compute, self.config.dropout
        seeds = (None, None, None) if seed is None else split_seed(seed, (3,))
        attended = SelfAttention(config, compute, name="attention")(x, segments, seeds[0])
        attended = checkpoint_name(attended, "attention_output")
        x = LayerNorm(config, compute, name="attention_norm")(x + drop(attended, seeds[1], rate))
        x = LayerNorm(config, compute, name="feed_forward_norm")(
            x + drop(feed_forward(config, compute, x), seeds[2], rate))
        self.sow("intermediates", "hidden", x)  # kept only if the "intermediates" collection is mutable
        return nn.with_logical_constraint(x, ("batch", "sequence", "width")), None


class BertEncoder(nn.Module):
    """Embeddings and L layers."""
    config: BertConfig
    compute: ComputeConfig

    def setup(self) -> None:
        self.embeddings = Embeddings(self.config, self.compute)
        self.layers = stack(BertLayer, self.config, self.compute)

    def __call__(self, tokens: Integer[Array, "B S"], segments: Integer[Array, "B S"],
                 token_types: Integer[Array, "B S"], *, deterministic: bool,
                 positions: Integer[Array, "B S"] | None = None) -> Float[Array, "B S D"]:
        """Hidden states of the last layer, in the activation dtype.

        Args:
          segments: 0 for padding; attention and positions stay inside a segment. With one text in a row this is the
            attention mask.
          token_types: below `config.token_types`.
          positions: of the tokens; counted from the start of each segment if not given.
        """
        positions = position_ids(segments) if positions is None else positions
        seed, seeds = layer_seeds(self.config, None if deterministic else self.make_rng("dropout"))
        x = self.embeddings(tokens, positions, token_types, seed)
        x, _ = self.layers(x, segments, seeds)
        return x

    def token_embedding(self) -> Embed:
        """The token embedding [V, D], which heads share as output layer."""
        return self.embeddings.token
