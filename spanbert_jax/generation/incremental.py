"""Incremental decoding: an encoder-decoder model computed one position at a time, with cached keys and values."""
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from spanbert_jax.model import EncoderDecoder, merge_tied_params
from spanbert_jax.model.decoder import Attention, Decoder, DecoderLayer, LayerCache, LayerInputs, heads_first


class DecodeState(NamedTuple):
    """Cached keys and values of the positions so far, for K hypotheses of each of B sources."""
    layers: tuple[LayerCache, ...]  # a cache per layer, of B * K hypotheses
    memory_mask: jax.Array  # booleans [B, 1, 1, S], whether a source position is a token


def unstack_layers(params: Any) -> Any:
    """Parameters of an `EncoderDecoder` in the layout of an `IncrementalDecoder`.

    Each layer gets its own arrays, because every step would copy its part of stacked ones. The kernels of queries, keys
    and values of self-attention are joined.
    """
    params = merge_tied_params(params)
    decoder = params["decoder"]
    count = len(jax.tree.leaves(decoder["layers"])[0])
    separate = [jax.tree.map(lambda stacked, layer=layer: stacked[layer], decoder["layers"]) for layer in range(count)]
    joined = [{**layer, "attention": _joined(layer["attention"])} for layer in separate]
    return {**params, "decoder": {**decoder, "layers": joined}}


def _joined(attention: Any) -> Any:
    return {"output": attention["output"], "joined": jax.tree.map(
        lambda *parts: jnp.concatenate(parts, axis=-1), *(attention[name] for name in ("query", "key", "value")))}


class IncrementalDecoder:
    """An encoder-decoder model that computes one position at a time, with parameters from `unstack_layers`."""

    def __init__(self, model: EncoderDecoder, params: Any):
        # The encoder runs once; a loop over stacked layers copies least.
        self._encoder = model.clone(compute=model.compute.replace(layers="scanned"))
        self._params, self._layers, self.config = params, params["decoder"]["layers"], model.decoder_config
        self._decoder, self._layer = Decoder(self.config, model.compute), DecoderLayer(self.config, model.compute)
        self._compute = model.compute

    def start(self, tokens: jax.Array, segments: jax.Array, hypotheses: int, length: int) -> DecodeState:
        """Encodes sources [B, S], segments 0 for padding; the caches have room for `length` tokens."""
        memory = self._encoder.apply({"params": self._params}, tokens, segments, method=EncoderDecoder.encode)
        heads = self.config.num_heads
        blank = jnp.zeros((len(tokens) * hypotheses, heads, length, self.config.width // heads),
                          self._compute.activation_dtype)
        attention = Attention(self.config, self._compute)
        layers = tuple(LayerCache(blank, blank, *map(heads_first, attention.apply(
            {"params": layer["memory_attention"]}, memory, method=Attention.keys_and_values)))
            for layer in self._layers)
        # Without a barrier XLA transposes the memory in every step instead of once.
        return DecodeState(jax.lax.optimization_barrier(layers), (segments != 0)[:, None, None, :])

    def step(self, state: DecodeState, tokens: jax.Array, step: jax.Array) -> tuple[jax.Array, DecodeState]:
        """Float32 logits [B, K, V] of the tokens after tokens [B, K] at position `step`, and the new state."""
        params = {"params": self._params["decoder"]}
        x: Any = self._decoder.apply(params, tokens, step, method=Decoder.embed)
        mask = jnp.arange(state.layers[0].key.shape[-2]) <= step
        layers: list[Any] = []
        for layer, cache in zip(self._layers, state.layers, strict=True):
            inputs = LayerInputs(mask, state.memory_mask, cache=cache, step=step)
            x, new_cache = self._layer.apply({"params": layer}, x, inputs, None)
            layers.append(new_cache)
        logits: Any = self._decoder.apply(params, x, method=Decoder.logits)
        return logits[..., :self.config.vocab_size], state._replace(layers=tuple(layers))


def reorder_cache(state: DecodeState, hypotheses: jax.Array) -> DecodeState:
    """The state of selected hypotheses of each source, by number [B, K]."""
    count, width = hypotheses.shape
    rows = (jnp.arange(count)[:, None] * width + hypotheses).reshape(-1)
    return state._replace(layers=tuple(cache._replace(key=cache.key[rows], value=cache.value[rows])
                                         for cache in state.layers))
