"""ModernBERT: rotary positions, pre-norm layers, gated feed-forward, attention in a window (Warner et al., 2024).

A layer is global where its number is a multiple of `global_every`; in other layers a token attends to its window only.
"""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Float32, Integer, UInt32

from spanbert_jax.common.settings import require, setting
from spanbert_jax.model.attention import AttentionSpec
from spanbert_jax.model.attention.self_attention import SelfAttention
from spanbert_jax.model.config import ComputeConfig, ModelConfig
from spanbert_jax.model.dropout import drop, split_seed
from spanbert_jax.model.functions import gated_gelu
from spanbert_jax.model.heads import gather, transform
from spanbert_jax.model.layers import Dense, Embed, LayerNorm, layer_seeds, position_ids, stack

Rotary = tuple[jax.Array, jax.Array]  # cosine and sine, float32 [B, S, H / 2] each


def _check_base(field: str, base: float) -> None:
    require(1 < base < math.inf, field, base, "must be above 1 and finite")


@dataclasses.dataclass(frozen=True)
class ModernBertConfig(ModelConfig):
    """A ModernBERT. The defaults are those of the published base model."""
    architecture = "modernbert"
    decodes = False
    # Layers, width and feed-forward width of the published base and large, and of Ettin's smaller encoders.
    sizes: ClassVar[Mapping[str, Mapping[str, int]]] = {
        name: dict(num_layers=layers, width=64 * heads, num_heads=heads, feed_forward=feed_forward)
        for name, layers, heads, feed_forward in (
            ("tiny", 4, 2, 192), ("mini", 7, 4, 384), ("small", 10, 6, 576), ("medium", 19, 8, 768),
            ("base", 22, 12, 1152), ("large", 28, 16, 2624))}

    num_layers: int = 22
    feed_forward: int = 1152  # F, of the gated product; the projection into it is 2 F wide
    max_positions: int = 8192
    dropout: float = 0.0  # rate on embeddings
    attention_dropout: float = 0.0  # rate on attention probabilities and on the output of attention
    layer_norm_epsilon: float = 1e-5
    global_every: int = setting(3, "Distance of global layers; the layers between attend to a window.", minimum=1)
    window: int = setting(128, "Tokens in the window of local layers: half of them on each side, and the token itself.",
                          minimum=2)
    global_rotary_base: float = setting(160_000.0, "Base of the rotary positions of global layers, above 1.",
                                        check=_check_base, overridable=True)
    local_rotary_base: float = setting(10_000.0, "Base of the rotary positions of local layers, above 1.",
                                       check=_check_base, overridable=True)
    feed_forward_dropout: float = setting(0.0, "Dropout rate inside feed-forward layers.", minimum=0, below=1)
    classifier_dropout: float = setting(0.0, "Dropout rate before classifiers.", minimum=0, below=1)
    pooling: str = setting("cls", "Vector of a text: its first token ('cls') or the mean of its tokens.",
                           choices=("cls", "mean"), overridable=True)
    norm_bias: bool = setting(False, "Biases of layer norms.")
    attention_bias: bool = setting(False, "Biases of the projections of attention.")
    feed_forward_bias: bool = setting(False, "Biases of the projections of feed-forward layers.")
    head_bias: bool = setting(False, "Bias of the projection in the transform of prediction heads.")
    initializer_cutoff: float = 2.0  # initial kernels are cut off at so many standard deviations

    @property
    def head_dropout(self) -> float:
        return self.classifier_dropout

    @property
    def rotary_positions(self) -> bool:
        return True

    @property
    def attention_specs(self) -> tuple[AttentionSpec, ...]:
        kinds = {self.is_global(layer) for layer in range(self.num_layers)}
        return tuple(self.attention_spec._replace(window=0 if is_global else self.window) for is_global in kinds)

    def kernel_init(self, residual: bool) -> nn.initializers.Initializer:
        deviation = self.initializer_range / (math.sqrt(2 * self.num_layers) if residual else 1)

        def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
            cutoff = self.initializer_cutoff
            return deviation * jax.random.truncated_normal(key, -cutoff, cutoff, shape, dtype)

        return init

    def make_encoder(self, compute: ComputeConfig) -> ModernBertEncoder:
        return ModernBertEncoder(self, compute)

    def make_pooler(self, compute: ComputeConfig) -> nn.Module:
        return ModernBertPooler(self, compute)

    def make_position_transform(self, compute: ComputeConfig) -> nn.Module:
        return PredictionHead(self, compute)

    def is_global(self, layer: int) -> bool:
        """Whether a layer attends to all positions."""
        return layer % self.global_every == 0

    def layer_multiply_adds(self, length: int) -> int:
        projections = 4 * self.width * self.width + 3 * self.width * self.feed_forward
        return length * projections + 2 * length * length * self.width

    def encoder_multiply_adds(self, length: int) -> int:
        local_layers = sum(not self.is_global(layer) for layer in range(self.num_layers))
        outside = length - min(length, self.window // 2 * 2 + 1)  # keys of a query that local layers leave out
        saved = 2 * length * outside * self.width
        return self.num_layers * self.layer_multiply_adds(length) - local_layers * saved


class LayerInputs(NamedTuple):
    """Inputs of every layer besides hidden states."""
    segments: jax.Array  # [B, S] integers, 0 for padding
    global_rotary: Rotary
    local_rotary: Rotary


class ModernBertLayer(nn.Module):
    """Attention and gated feed-forward, each of the normalized input and added to it. [B, S, D] -> [B, S, D]."""
    config: ModernBertConfig
    compute: ComputeConfig
    is_global: bool = True
    is_first: bool = False  # the first layer's input is normalized already

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"], inputs: LayerInputs,
                 seed: UInt32[Array, " 2"] | None) -> tuple[Float[Array, "B S D"], None]:
        """The next hidden states. `seed` is the dropout seed; None without dropout."""
        config, compute = self.config, self.compute
        seeds = (None, None, None) if seed is None else split_seed(seed, (3,))
        norm = LayerNorm(config, compute, config.norm_bias, name="attention_norm")
        attention = SelfAttention(config, compute, config.attention_bias, 0 if self.is_global else config.window,
                                  name="attention")
        rotary = inputs.global_rotary if self.is_global else inputs.local_rotary
        attended = attention(x if self.is_first and not self.is_initializing() else norm(x), inputs.segments, seeds[0],
                             rotary)
        attended = checkpoint_name(attended, "attention_output")
        x += drop(attended, seeds[1], config.attention_dropout)
        norm = LayerNorm(config, compute, config.norm_bias, name="feed_forward_norm")
        x += gated_feed_forward(config, compute, norm(x), seeds[2])
        return nn.with_logical_constraint(x, ("batch", "sequence", "width")), None


def gated_feed_forward(config: ModernBertConfig, compute: ComputeConfig, x: Float[Array, "B S D"],
                       seed: UInt32[Array, " 2"] | None) -> Float[Array, "B S D"]:
    """GELU of one projection times another, projected back: [B, S, D] -> [B, S, F] -> [B, S, D] (Shazeer, 2020)."""
    def project(name: str, activated: bool) -> jax.Array:
        inner = Dense(config, compute, config.feed_forward, ("embed", "mlp"), activated, config.feed_forward_bias,
                      name=name)(x)
        return nn.with_logical_constraint(checkpoint_name(inner, "feed_forward"), ("batch", "sequence", "mlp"))

    product = gated_gelu(project("feed_forward_in", True), project("feed_forward_gate", False))
    product = drop(product, seed, config.feed_forward_dropout)
    outer = Dense(config, compute, config.width, ("mlp", "embed"), use_bias=config.feed_forward_bias, residual=True,
                  name="feed_forward_out")(product)
    return checkpoint_name(outer, "layer_output")


class ModernBertEmbeddings(nn.Module):
    """The token embedding with layer norm and dropout."""
    config: ModernBertConfig
    compute: ComputeConfig

    def setup(self) -> None:
        config, compute = self.config, self.compute
        self.token = Embed(config, compute, config.padded_vocab_size, config.width, ("vocab", "embed"))
        self.norm = LayerNorm(config, compute, config.norm_bias)

    def __call__(self, tokens: Integer[Array, "B S"], seed: UInt32[Array, " 2"] | None) -> Float[Array, "B S D"]:
        """Embeds tokens. `seed` is the dropout seed; None without dropout."""
        x = drop(self.norm(self.token(tokens)), seed, self.config.dropout)
        return nn.with_logical_constraint(x, ("batch", "sequence", "width"))


class ModernBertEncoder(nn.Module):
    """Embeddings, L layers and a last norm."""
    config: ModernBertConfig
    compute: ComputeConfig

    def setup(self) -> None:
        self.embeddings = ModernBertEmbeddings(self.config, self.compute)
        self.layers = stack(ModernBertLayer, self.config, self.compute)
        self.norm = LayerNorm(self.config, self.compute, self.config.norm_bias)

    def __call__(self, tokens: Integer[Array, "B S"], segments: Integer[Array, "B S"],
                 token_types: Integer[Array, "B S"], *, deterministic: bool,
                 positions: Integer[Array, "B S"] | None = None) -> Float[Array, "B S D"]:
        """Hidden states of the last layer, normalized, in the activation dtype; arguments as for `BertEncoder`."""
        config = self.config
        positions = position_ids(segments) if positions is None else positions
        seed, seeds = layer_seeds(config, None if deterministic else self.make_rng("dropout"))
        bases = (config.global_rotary_base, config.local_rotary_base)
        inputs = LayerInputs(segments, *(rotary(positions, config.width // config.num_heads, base) for base in bases))
        x = self.embeddings(tokens, seed)
        if self.is_initializing():
            x, _ = self.layers(x, inputs, seeds)  # makes the parameters of all layers, which are alike
        else:
            x = run_layers(config, self.compute, nn.unbox(self.layers.variables["params"]), x, inputs, seeds)
        return self.norm(x)

    def token_embedding(self) -> Embed:
        """The token embedding [V, D], which heads share as output layer."""
        return self.embeddings.token


def rotary(positions: Integer[Array, "B S"], head_width: int,
           base: float) -> tuple[Float32[Array, "B S H_2"], Float32[Array, "B S H_2"]]:
    """Cosine and sine of the angles position * base^(-2i / H), for i below H / 2."""
    frequencies = 1 / base ** (jnp.arange(0, head_width, 2, dtype=jnp.float32) / head_width)
    angles = positions[..., None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def run_layers(config: ModernBertConfig, compute: ComputeConfig, params: Any, x: Float[Array, "B S D"],
               inputs: LayerInputs, seeds: UInt32[Array, "L 2"] | None) -> Float[Array, "B S D"]:
    """Runs all layers, unrolled, or scanned by groups that end with a global layer.

    Args: params: of the layers, stacked on a leading axis.
    """
    layers = {kind: _layer_function(config, compute, *kind) for kind in ((True, True), (True, False), (False, False))}

    def run(x: jax.Array, layer: int, params: Any, seed: jax.Array | None) -> jax.Array:
        return layers[config.is_global(layer), layer == 0](params, x, inputs, seed)

    def run_each(x: jax.Array, first: int, stacked: tuple[Any, jax.Array | None], count: int) -> jax.Array:
        for offset, (params, seed) in enumerate(_unstack(stacked, count)):
            x = run(x, first + offset, params, seed)
        return x

    stacked, count, size = (params, seeds), config.num_layers, config.global_every
    groups = (count - 1) // size
    if compute.layers == "unrolled" or groups < 2:
        return run_each(x, 0, stacked, count)
    first, middle, last = _split(stacked, (1, groups * size, count - 1 - groups * size))
    grouped = jax.tree.map(lambda part: part.reshape(groups, size, *part.shape[1:]), middle)
    x = run_each(x, 0, first, 1)
    x, _ = jax.lax.scan(lambda x, group: (run_each(x, 1, group, size), None), x, grouped)
    return run_each(x, 1, last, count - 1 - groups * size)


def _layer_function(config: ModernBertConfig, compute: ComputeConfig, is_global: bool,
                    is_first: bool) -> Callable[..., jax.Array]:
    """A layer as a function of (parameters, hidden states, inputs, seed)."""
    layer = ModernBertLayer(config, compute, is_global, is_first, parent=None)

    def run(params: Any, x: jax.Array, inputs: LayerInputs, seed: jax.Array | None) -> jax.Array:
        return layer.apply({"params": params}, x, inputs, seed)[0]

    return run if compute.remat == "none" else jax.checkpoint(run, **compute.remat_options)


def _split(stacked: Any, sizes: tuple[int, ...]) -> list[Any]:
    """Splits arrays on their leading axis."""
    parts, structure = jax.tree.flatten(stacked)
    # Not slices, whose gradients would be summed one after the other.
    split = [jax.lax.split(part, sizes, 0) for part in parts]
    return [jax.tree.unflatten(structure, pieces) for pieces in zip(*split, strict=True)]


def _unstack(stacked: Any, count: int) -> list[Any]:
    """The members of arrays that are stacked on a leading axis."""
    return [jax.tree.map(lambda part: part[0], one) for one in _split(stacked, (1,) * count)]


class PredictionHead(nn.Module):
    """Projection, GELU and layer norm of hidden states before a classifier."""
    config: ModernBertConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """The input of the classifier."""
        return transform(self.config, self.compute, x)


class ModernBertPooler(nn.Module):
    """The prediction head of the vector of each text: its first hidden state, or the mean of them."""
    config: ModernBertConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, hidden: Float[Array, "B S D"], segments: Integer[Array, "B S"],
                 first: Integer[Array, "B K"] | None = None) -> Float[Array, "B *K D"]:
        """Vectors; see `heads.Pooler`."""
        if self.config.pooling == "mean":
            vectors = mean_of_texts(hidden, segments, first)
        else:
            vectors = hidden[:, 0] if first is None else gather(hidden, first)
        return transform(self.config, self.compute, vectors)


def mean_of_texts(hidden: Float[Array, "B S D"], segments: Integer[Array, "B S"],
                  first: Integer[Array, "B K"] | None) -> Float[Array, "B *K D"]:
    """Mean hidden states of texts, without padding; arguments as for `heads.Pooler`."""
    texts = jnp.ones((1,), segments.dtype) if first is None else 1 + jnp.arange(first.shape[1], dtype=segments.dtype)
    inside = (segments if first is not None else (segments != 0).astype(segments.dtype))[:, None] == texts[:, None]
    weights = inside / jnp.maximum(inside.sum(axis=-1, keepdims=True), 1)
    means = jnp.einsum("BKS,BSD->BKD", weights.astype(jnp.float32), hidden.astype(jnp.float32)).astype(hidden.dtype)
    return means[:, 0] if first is None else means
