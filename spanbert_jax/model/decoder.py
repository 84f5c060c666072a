"""The decoder: causal layers with attention to an encoder, for all positions at once or one at a time."""
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Float32, Integer, UInt32

from spanbert_jax.model.attention.plain import attention_mask, dot_product_attention
from spanbert_jax.model.config import ComputeConfig, ModelConfig
from spanbert_jax.model.dropout import drop, split_seed
from spanbert_jax.model.heads import mask_padding
from spanbert_jax.model.heads.masked_tokens import MaskedTokenHead
from spanbert_jax.model.layers import Dense, Embeddings, LayerNorm, feed_forward, layer_seeds, position_ids, stack


class LayerCache(NamedTuple):
    """Keys and values of a layer, [batch, N, positions, H] as `heads_first` makes them."""
    key: jax.Array  # keys of the decoder's own positions, for each of R hypotheses
    value: jax.Array  # values of them
    memory_key: jax.Array  # keys of the encoder's positions; each of B sources has R / B hypotheses
    memory_value: jax.Array  # values of them


def heads_first(x: Float[Array, "B S N H"]) -> Float[Array, "B N S H"]:
    """Exchanges positions and heads, and back: attention multiplies in this layout, so no step transposes a cache."""
    return x.swapaxes(1, 2)


class LayerInputs(NamedTuple):
    """Inputs of a decoder layer besides hidden states [B, T, D]."""
    # Booleans that broadcast to [R, N, T, T], which of the decoder's positions attend to which.
    mask: Bool[Array, "..."]
    memory_mask: Bool[Array, "..."]  # booleans that broadcast to [B, N, T, S]
    memory: Float[Array, "B S D"] | None = None  # hidden states of the encoder; None with a cache
    # Of the positions so far; hidden states are then those of position `step` of T hypotheses for each source.
    cache: LayerCache | None = None
    step: jax.Array | None = None  # the position, a scalar


class Attention(nn.Module):
    """Attention to the decoder's or the encoder's positions, with the parameters of the encoder's `SelfAttention`."""
    config: ModelConfig
    compute: ComputeConfig

    def setup(self) -> None:
        config, compute = self.config, self.compute
        self.query, self.key, self.value = (Dense(config, compute, config.width, ("embed", "heads")) for _ in range(3))
        self.joined = Dense(config, compute, 3 * config.width, ("embed", "heads"))
        self.output = Dense(config, compute, config.width, ("heads", "embed"))

    def queries(self, x: Float[Array, "B T D"]) -> Float[Array, "B T N H"]:
        """Projects queries."""
        return self._heads(self.query(x))

    def keys_and_values(self, source: Float[Array, "B S D"]) -> tuple[Float[Array, "B S N H"], Float[Array, "B S N H"]]:
        """Projects keys and values."""
        return self._heads(self.key(source)), self._heads(self.value(source))

    def queries_keys_and_values(self, x: Float[Array, "B T D"]) -> list[jax.Array]:
        """Projects all three, [B, T, N, H] each, in one product, which is faster for few positions.

        The parameters are joined, as `generation.incremental.unstack_layers` makes them.
        """
        return [self._heads(part) for part in jnp.split(self.joined(x), 3, axis=-1)]

    def _heads(self, projected: Float[Array, "B T D"]) -> Float[Array, "B T N H"]:
        return checkpoint_name(projected, "projections").reshape(*projected.shape[:2], self.config.num_heads, -1)

    def __call__(self, query: Float[Array, "B T N H"], key: Float[Array, "B S N H"], value: Float[Array, "B S N H"],
                 mask: Bool[Array, "..."], seed: UInt32[Array, " 2"] | None) -> Float[Array, "B T D"]:
        """Attention with its output projection; `mask` broadcasts to [B, N, T, S]."""
        seeds = None if seed is None else split_seed(seed, (query.shape[0], self.config.num_heads))
        context = dot_product_attention((query, key, value), mask, seeds, self.config.attention_spec)
        return checkpoint_name(self.output(context), "attention_output")


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder, and feed-forward. [B, T, D] -> [B, T, D]."""
    config: ModelConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], inputs: LayerInputs,
                 seed: UInt32[Array, " 2"] | None) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """The next hidden states, and the cache with the current position. `seed` is None without dropout."""
        config, compute, cache = self.config, self.compute, inputs.cache
        seeds = [None] * 5 if seed is None else split_seed(seed, (5,))
        attention = Attention(config, compute, name="attention")
        memory_attention = Attention(config, compute, name="memory_attention")

        def attend(x: jax.Array) -> jax.Array:
            nonlocal cache
            if cache is None:
                return attention(attention.queries(x), *attention.keys_and_values(x), inputs.mask, seeds[0])
            hypotheses = x.reshape(len(cache.key), 1, -1)  # each has its own previous positions
            query, *current = attention.queries_keys_and_values(hypotheses)
            step: Any = inputs.step
            key, value = (jax.lax.dynamic_update_slice_in_dim(before, heads_first(new), step, 2)
                          for before, new in zip(cache[:2], current, strict=True))
            cache = cache._replace(key=key, value=value)
            return attention(query, heads_first(key), heads_first(value), inputs.mask, None).reshape(x.shape)

        def attend_to_memory(x: jax.Array) -> jax.Array:
            if cache is None:
                assert inputs.memory is not None, "it is needed without a cache"
                key, value = memory_attention.keys_and_values(inputs.memory)
            else:
                key, value = heads_first(cache.memory_key), heads_first(cache.memory_value)
            return memory_attention(memory_attention.queries(x), key, value, inputs.memory_mask, seeds[1])

        def add(name: str, x: jax.Array, sublayer: Callable[[jax.Array], jax.Array],
                seed: jax.Array | None) -> jax.Array:
            norm = LayerNorm(config, compute, name=name)
            added = drop(sublayer(norm(x) if config.norm_first else x), seed, config.dropout)
            return x + added if config.norm_first else norm(x + added)

        x = add("attention_norm", x, attend, seeds[2])
        x = add("memory_attention_norm", x, attend_to_memory, seeds[3])
        x = add("feed_forward_norm", x, lambda x: feed_forward(config, compute, x), seeds[4])
        return nn.with_logical_constraint(x, ("batch", "sequence", "width")), cache


class Decoder(nn.Module):
    """Embeddings, L layers, and an output over the vocabulary that shares the token embedding."""
    config: ModelConfig
    compute: ComputeConfig = ComputeConfig()

    @property
    def dummy_inputs(self) -> dict[str, Any]:
        """The smallest inputs, for `init`."""
        one = jnp.ones((1, 1), jnp.int32)
        return dict(tokens=one, segments=one, memory=jnp.zeros((1, 1, self.config.width)), memory_segments=one,
                    deterministic=True)

    def setup(self) -> None:
        self.embeddings = Embeddings(self.config, self.compute)
        self.layers = stack(DecoderLayer, self.config, self.compute)
        if self.config.norm_first:
            self.norm = LayerNorm(self.config, self.compute)
        else:
            self.masked_token_head = MaskedTokenHead(self.config, self.compute)

    def __call__(self, tokens: Integer[Array, "B T"], segments: Integer[Array, "B T"], memory: Float[Array, "B S D"],
                 memory_segments: Integer[Array, "B S"], *, deterministic: bool) -> Float[Array, "B T D"]:
        """The last hidden states of whole texts; each position attends to those up to itself.

        Args:
          segments: 0 for padding; a text attends to the source with its own number, and has its own positions.
          memory: hidden states of the encoder, in rows of `memory_segments`.
        """
        seed, seeds = layer_seeds(self.config, None if deterministic else self.make_rng("dropout"))
        # Padding may exceed the last position.
        positions = jnp.minimum(position_ids(segments), self.config.max_positions - 1)
        order = jnp.arange(tokens.shape[1])
        causal = (segments[:, None, :, None] == segments[:, None, None, :]) & (order[:, None] >= order)
        inputs = LayerInputs(causal, attention_mask(segments, memory_segments), memory)
        x, _ = self.layers(self.embeddings(tokens, positions, 0 * tokens, seed), inputs, seeds)
        if self.is_initializing():
            self.logits(x)
        return x

    def embed(self, tokens: Integer[Array, "B K"], step: Integer[Array, ""]) -> Float[Array, "B K D"]:
        """Embeds the tokens of K hypotheses at position `step`."""
        return self.embeddings(tokens, jnp.full_like(tokens, step), 0 * tokens, None)

    def logits(self, hidden: Float[Array, "B T D"]) -> Float32[Array, "B T V"]:
        """Logits of the next token, over the padded vocabulary."""
        if not self.config.norm_first:
            return self.masked_token_head(hidden, self.embeddings.token)
        return mask_padding(self.config, self.embeddings.token.logits(self.norm(hidden)))
