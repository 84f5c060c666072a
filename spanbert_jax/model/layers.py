"""Modules that every architecture is made of, with BERT's initialization and logical names on every parameter axis."""
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int32, Integer, UInt32

from spanbert_jax.model.config import ComputeConfig, ModelConfig
from spanbert_jax.model.dropout import drop, seed_from, split_seed
from spanbert_jax.model.functions import add_bias, normalize
from spanbert_jax.model.products import look_up, per_group_gradients, project, tied_logits


class Embed(nn.Module):
    """An embedding [rows, features] from the config's `kernel_init`, with logical axis names `axes`."""
    config: ModelConfig
    compute: ComputeConfig
    rows: int
    features: int
    axes: tuple[str | None, str | None]

    def setup(self) -> None:
        init = nn.with_logical_partitioning(self.config.kernel_init(residual=False), self.axes)
        self.embedding = self.param("embedding", init, (self.rows, self.features))
        self.group_gradients = per_group_gradients(self.embedding, jnp.dtype(self.compute.gradient_dtype))

    def __call__(self, ids: Integer[Array, "..."]) -> Float[Array, "... features"]:
        """Looks up rows by id, in the activation dtype."""
        return look_up(self.embedding, self.group_gradients, ids, self.compute.activation_dtype)

    def logits(self, x: Float[Array, "B M features"]) -> Float[Array, "B M rows"]:
        """Dot products with every row, in float32."""
        return tied_logits(x, self.embedding, self.group_gradients)


class Dense(nn.Module):
    """A projection; kernel [in, features] from the config's `kernel_init`, with logical axis names `axes`."""
    config: ModelConfig
    compute: ComputeConfig
    features: int
    axes: tuple[str | None, str | None]
    activated: bool = False  # whether an activation follows; see `functions.add_bias`
    use_bias: bool = True
    residual: bool = False  # whether the output is added to the hidden states; see `ModelConfig.kernel_init`

    @nn.compact
    def parameters(self, width: int) -> tuple[Float[Array, "width features"], Float[Array, " features"] | None]:
        """The kernel and the bias, None without one, for inputs of a width."""
        init, zeros = self.config.kernel_init(self.residual), nn.initializers.zeros_init()
        kernel: Any = self.param("kernel", nn.with_logical_partitioning(init, self.axes), (width, self.features))
        bias: Any = None
        if self.use_bias:
            bias = self.param("bias", nn.with_logical_partitioning(zeros, self.axes[1:]), (self.features,))
        return kernel, bias

    def __call__(self, x: Float[Array, "... width"]) -> Float[Array, "... features"]:
        """The projection, in the activation dtype."""
        return dense(self.compute, x, *self.parameters(x.shape[-1]), self.activated)


def dense(compute: ComputeConfig, x: Float[Array, "... width"], kernel: Float[Array, "width features"],
          bias: Float[Array, " features"] | None, activated: bool = False) -> Float[Array, "... features"]:
    """The projection of `Dense` with given parameters."""
    y = project(x.astype(compute.activation_dtype), kernel, jnp.dtype(compute.gradient_dtype))
    return y if bias is None else add_bias(y, bias.astype(y.dtype), activated)


class LayerNorm(nn.Module):
    """Layer norm over the last axis, computed in float32."""
    config: ModelConfig
    compute: ComputeConfig
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """The normalized input, in the activation dtype."""
        def vector(name: str, init: nn.initializers.Initializer) -> Any:
            return self.param(name, nn.with_logical_partitioning(init, ("norm",)), (x.shape[-1],))

        scale = vector("scale", nn.initializers.ones_init())
        bias = vector("bias", nn.initializers.zeros_init()) if self.use_bias else jnp.zeros(x.shape[-1:])
        return normalize(x.astype(self.compute.activation_dtype), scale, bias, self.config.layer_norm_epsilon)


class Embeddings(nn.Module):
    """The sum of token, position and token type embeddings, with layer norm unless `norm_first`, and dropout."""
    config: ModelConfig
    compute: ComputeConfig

    def setup(self) -> None:
        config, compute = self.config, self.compute
        self.token = Embed(config, compute, config.padded_vocab_size, config.width, ("vocab", "embed"))
        self.position = Embed(config, compute, config.max_positions, config.width, (None, "embed"))
        if config.token_types:
            self.token_type = Embed(config, compute, config.token_types, config.width, (None, "embed"))
        if not config.norm_first:
            self.norm = LayerNorm(config, compute)

    def __call__(self, tokens: Integer[Array, "B S"], positions: Integer[Array, "B S"],
                 token_types: Integer[Array, "B S"], seed: UInt32[Array, " 2"] | None) -> Float[Array, "B S D"]:
        """Embeds tokens. `seed` is the dropout seed; None without dropout.

        With one token type all tokens have it, both texts of a pair too, as in RoBERTa.
        """
        x = self.token(tokens) + self.position(positions)
        if self.config.token_types:
            x += self.token_type(token_types if self.config.token_types > 1 else 0 * token_types)
        if not self.config.norm_first:
            x = self.norm(x)
        return nn.with_logical_constraint(drop(x, seed, self.config.dropout), ("batch", "sequence", "width"))


def feed_forward(config: ModelConfig, compute: ComputeConfig, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
    """Two projections with the activation between them, [B, S, D] -> [B, S, F] -> [B, S, D].

    Call it in the `nn.compact` method of a layer, which owns the parameters feed_forward_in and feed_forward_out.
    """
    inner = Dense(config, compute, config.feed_forward, ("embed", "mlp"), activated=True, name="feed_forward_in")(x)
    inner = nn.with_logical_constraint(checkpoint_name(inner, "feed_forward"), ("batch", "sequence", "mlp"))
    outer = Dense(config, compute, config.width, ("mlp", "embed"), name="feed_forward_out")(config.activation(inner))
    return checkpoint_name(outer, "layer_output")


def stack(layer: type[nn.Module], config: ModelConfig, compute: ComputeConfig) -> nn.Module:
    """L layers in a row, scanned or unrolled.

    Args:
      layer: module (config, compute) called as (x, shared inputs, seed) that returns x and a further output or None.

    Returns:
      A module called as (x, shared inputs, seeds of the layers [L, 2] or None). Parameters and further outputs of the
      layers are stacked on a leading axis, whether the layers are scanned or unrolled, so checkpoints serve both.
    """
    if compute.remat != "none":
        layer = nn.remat(layer, **compute.remat_options)
    return nn.scan(
        layer, length=config.num_layers, variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True}, in_axes=(nn.broadcast, 0),
        unroll=config.num_layers if compute.layers == "unrolled" else 1,
        metadata_params={nn.PARTITION_NAME: "layers"})(config, compute)


def layer_seeds(config: ModelConfig,
                key: jax.Array | None) -> tuple[UInt32[Array, " 2"] | None, UInt32[Array, "L 2"] | None]:
    """Dropout seeds of the embeddings and of each layer, from a key; None and None without a key."""
    if key is None:
        return None, None
    *seeds, seed = split_seed(seed_from(key), (config.num_layers + 1,))
    return seed, jnp.stack(seeds)


def position_ids(segments: Integer[Array, "B S"]) -> Int32[Array, "B S"]:
    """Positions counted from the start of each segment; padding continues those of the last segment."""
    index = jnp.broadcast_to(jnp.arange(segments.shape[1], dtype=jnp.int32), segments.shape)
    first = jnp.pad((jnp.diff(segments) != 0) & (segments[:, 1:] != 0), ((0, 0), (1, 0)), constant_values=True)
    return index - jax.lax.cummax(jnp.where(first, index, 0), axis=1)
