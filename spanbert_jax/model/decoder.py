"""The decoder: causal layers that attend to an encoder, all positions at once or one after the other."""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from spanbert_jax.model.attention.plain import attention_mask, dot_product_attention
from spanbert_jax.model.attention.self_attention import attention_spec
from spanbert_jax.model.config import DecoderConfig
from spanbert_jax.model.dropout import drop, split_seed
from spanbert_jax.model.encoder import Embeddings, feed_forward, layer_seeds, position_ids, stack
from spanbert_jax.model.heads import PADDING_LOGIT, MaskedTokenHead
from spanbert_jax.model.layers import Dense, LayerNorm


class LayerCache(NamedTuple):
    """What a layer need not compute again for the positions that come after, `by_head`.

    Attributes:
      key, value: of the decoder's own positions, for each of R hypotheses.
      memory_key, memory_value: of the encoder's; B sources have R / B hypotheses each.
    """
    key: jax.Array
    value: jax.Array
    memory_key: jax.Array
    memory_value: jax.Array


def by_head(x: jax.Array) -> jax.Array:
    """[B, S, N, H] -> [B, N, S, H], as attention multiplies, so that no step turns a cache round; and back."""
    return x.swapaxes(1, 2)


class LayerInputs(NamedTuple):
    """What a layer is told besides hidden states [B, T, D].

    Attributes:
      visible: booleans that broadcast to [R, N, T, T], which of the decoder's positions see which.
      memory_visible: booleans that broadcast to [B, N, T, S].
      memory: [B, S, D] of the encoder; None where there is a cache.
      cache: of the positions before; the hidden states are then those of position `step` of T hypotheses for each
        source.
      step: a number.
    """
    visible: jax.Array
    memory_visible: jax.Array
    memory: jax.Array | None = None
    cache: LayerCache | None = None
    step: jax.Array | None = None


class Attention(nn.Module):
    """Attention to positions of one's own or of others, with the parameters of the encoder's `SelfAttention`."""
    config: DecoderConfig

    def setup(self):
        config = self.config
        self.query, self.key, self.value = (Dense(config, config.width, ("embed", "heads")) for _ in range(3))
        self.joined = Dense(config, 3 * config.width, ("embed", "heads"))
        self.output = Dense(config, config.width, ("heads", "embed"))

    def queries(self, x: jax.Array) -> jax.Array:
        """[B, T, D] -> [B, T, N, H]."""
        return self._heads(self.query(x))

    def keys_and_values(self, source: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, S, D] -> two of [B, S, N, H]."""
        key, value = (self._heads(layer(source)) for layer in (self.key, self.value))
        return key, value

    def queries_keys_and_values(self, x: jax.Array) -> list[jax.Array]:
        """[B, T, D] -> three of [B, T, N, H] by one product, faster where positions are few; parameters are joined, as
        `generation.incremental.unstack_layers` has them."""
        return [self._heads(part) for part in jnp.split(self.joined(x), 3, axis=-1)]

    def _heads(self, projected: jax.Array) -> jax.Array:
        return checkpoint_name(projected, "projections").reshape(*projected.shape[:2], self.config.num_heads, -1)

    def __call__(self, query: jax.Array, key: jax.Array, value: jax.Array, visible: jax.Array,
                 seed: jax.Array | None) -> jax.Array:
        """[B, T, N, H] over [B, S, N, H] twice -> [B, T, D]; `visible` broadcasts to [B, N, T, S]."""
        seeds = None if seed is None else split_seed(seed, (query.shape[0], self.config.num_heads))
        context = dot_product_attention((query, key, value), visible, seeds, attention_spec(self.config))
        return checkpoint_name(self.output(context), "attention_output")


class DecoderLayer(nn.Module):
    """Attention to what came before, attention to the encoder, and feed-forward. [B, T, D] -> [B, T, D]."""
    config: DecoderConfig

    @nn.compact
    def __call__(self, x: jax.Array, around: LayerInputs,
                 seed: jax.Array | None) -> tuple[jax.Array, LayerCache | None]:
        """The next hidden states, and the cache, with the position that they are of. Without a seed [2], no dropout."""
        config, cache = self.config, around.cache
        seeds = [None] * 5 if seed is None else split_seed(seed, (5,))
        own, other = Attention(config, name="attention"), Attention(config, name="memory_attention")

        def attend(x: jax.Array) -> jax.Array:
            nonlocal cache
            if cache is None:
                return own(own.queries(x), *own.keys_and_values(x), around.visible, seeds[0])
            alone = x.reshape(len(cache.key), 1, -1)  # each hypothesis has positions of its own before it
            query, *others = own.queries_keys_and_values(alone)
            key, value = (jax.lax.dynamic_update_slice_in_dim(before, by_head(new), around.step, 2)
                          for before, new in zip(cache[:2], others, strict=True))
            cache = cache._replace(key=key, value=value)
            return own(query, by_head(key), by_head(value), around.visible, None).reshape(x.shape)

        def attend_to_memory(x: jax.Array) -> jax.Array:
            key, value = other.keys_and_values(around.memory) if cache is None else map(by_head, cache[2:])
            return other(other.queries(x), key, value, around.memory_visible, seeds[1])

        x = _add(config, "attention_norm", x, attend, seeds[2])
        x = _add(config, "memory_attention_norm", x, attend_to_memory, seeds[3])
        x = _add(config, "feed_forward_norm", x, functools.partial(feed_forward, config), seeds[4])
        return nn.with_logical_constraint(x, ("batch", "sequence", "width")), cache


def _add(config: DecoderConfig, name: str, x: jax.Array, change: Callable[[jax.Array], jax.Array],
         seed: jax.Array | None) -> jax.Array:
    """Adds to x what is made of it, and normalises before or after."""
    norm = LayerNorm(config, name=name)
    added = drop(change(norm(x) if config.norm_first else x), seed, config.dropout)
    return x + added if config.norm_first else norm(x + added)


class Decoder(nn.Module):
    """Embeddings, L layers, and an output over the vocabulary that shares the piece embeddings."""
    config: DecoderConfig

    @property
    def smallest_inputs(self) -> dict[str, Any]:
        """What the parameters can be initialised with."""
        one = jnp.ones((1, 1), jnp.int32)
        return dict(tokens=one, segments=one, memory=jnp.zeros((1, 1, self.config.width)), memory_segments=one,
                    deterministic=True)

    def setup(self):
        config = self.config
        self.embeddings = Embeddings(config)
        self.layers = stack(DecoderLayer, config)
        if config.norm_first:
            self.norm = LayerNorm(config)
        else:
            self.masked_token_head = MaskedTokenHead(config)

    def __call__(self, tokens: jax.Array, segments: jax.Array, memory: jax.Array, memory_segments: jax.Array, *,
                 deterministic: bool) -> jax.Array:
        """The last hidden states of whole texts, each position knowing those up to itself.

        Args:
          tokens: [B, T] piece ids.
          segments: [B, T], 0 for padding; a text sees the source of its own number alone, and has positions of its own.
          memory: [B, S, D] of the encoder.
          memory_segments: [B, S].

        Returns:
          [B, T, D] in the compute dtype.
        """
        seed, seeds = layer_seeds(self.config, None if deterministic else self.make_rng("dropout"))
        positions = jnp.minimum(position_ids(segments), self.config.max_positions - 1)  # padding may run out of them
        order = jnp.arange(tokens.shape[1])
        visible = (segments[:, None, :, None] == segments[:, None, None, :]) & (order[:, None] >= order)
        around = LayerInputs(visible, attention_mask(segments, memory_segments), memory)
        x, _ = self.layers(self.embeddings(tokens, positions, 0 * tokens, seed), around, seeds)
        if self.is_initializing():
            self.logits(x)
        return x

    def embed(self, tokens: jax.Array, step: jax.Array) -> jax.Array:
        """[B, K] pieces at position `step` -> [B, K, D]."""
        return self.embeddings(tokens, jnp.full_like(tokens, step), 0 * tokens, None)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """What comes next. [B, T, D] -> [B, T, V], padded, float32."""
        if not self.config.norm_first:
            return self.masked_token_head(hidden, self.embeddings.token)
        logits = self.embeddings.token.logits(self.norm(hidden))
        return jnp.where(jnp.arange(self.config.padded_vocab_size) < self.config.vocab_size, logits, PADDING_LOGIT)
