"""A network that writes, one position after the other."""
from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from spanbert_jax.model import EncoderDecoder, merge_tied_params
from spanbert_jax.model.decoder import Attention, Decoder, DecoderLayer, LayerCache, LayerInputs, heads_first


class DecodeState(NamedTuple):
    """What has been computed of the positions so far, of K hypotheses for each of B sources.

    Attributes:
      layers: a cache for each layer, of B K hypotheses.
      memory_mask: booleans [B, 1, 1, S].
    """
    layers: tuple[LayerCache, ...]
    memory_mask: jax.Array


def unstack_layers(params: Any) -> Any:
    """Parameters of an `EncoderDecoder` as an `IncrementalDecoder` takes them, to be made once.

    Each layer has arrays of its own, for of stacked ones every step would copy what it needs. Those of queries, keys
    and values of what is written are joined.
    """
    params = merge_tied_params(params)
    decoder = params["decoder"]
    count = len(jax.tree.leaves(decoder["layers"])[0])
    apart = [jax.tree.map(lambda stacked, layer=layer: stacked[layer], decoder["layers"]) for layer in range(count)]
    joined = [{**layer, "attention": _joined(layer["attention"])} for layer in apart]
    return {**params, "decoder": {**decoder, "layers": joined}}


def _joined(attention: Any) -> Any:
    return {"output": attention["output"], "joined": jax.tree.map(
        lambda *parts: jnp.concatenate(parts, axis=-1), *(attention[name] for name in ("query", "key", "value")))}


class IncrementalDecoder:
    """A network that writes one position at a time, given its parameters `unstack_layers`."""

    def __init__(self, model: EncoderDecoder, params: Any):
        # The encoder runs once, where a loop over stacked layers copies least.
        self._encoder = model.clone(compute=model.compute.replace(layers="scanned"))
        self._params, self._layers, self.config = params, params["decoder"]["layers"], model.decoder_config
        self._decoder, self._layer = Decoder(self.config, model.compute), DecoderLayer(self.config, model.compute)
        self._compute = model.compute

    def begin(self, tokens: jax.Array, segments: jax.Array, hypotheses: int, length: int) -> DecodeState:
        """Reads sources [B, S], segments 0 for padding; nothing is written yet, and there is room for `length`."""
        memory = self._encoder.apply({"params": self._params}, tokens, segments, method=EncoderDecoder.encode)
        heads = self.config.num_heads
        blank = jnp.zeros((len(tokens) * hypotheses, heads, length, self.config.width // heads),
                          self._compute.activation_dtype)
        attention = Attention(self.config, self._compute)
        layers = tuple(LayerCache(blank, blank, *map(heads_first, attention.apply(
            {"params": layer["memory_attention"]}, memory, method=Attention.keys_and_values)))
            for layer in self._layers)
        # Without a barrier XLA turns the memory round in every step, and not once.
        return DecodeState(jax.lax.optimization_barrier(layers), (segments != 0)[:, None, None, :])

    def step(self, written: DecodeState, tokens: jax.Array, step: jax.Array) -> tuple[jax.Array, DecodeState]:
        """What follows pieces [B, K] at position `step`: logits [B, K, V] float32."""
        params = {"params": self._params["decoder"]}
        x = self._decoder.apply(params, tokens, step, method=Decoder.embed)
        mask, layers = jnp.arange(written.layers[0].key.shape[-2]) <= step, []
        for layer, cache in zip(self._layers, written.layers, strict=True):
            inputs = LayerInputs(mask, written.memory_mask, cache=cache, step=step)
            x, cache = self._layer.apply({"params": layer}, x, inputs, None)
            layers.append(cache)
        logits = self._decoder.apply(params, x, method=Decoder.logits)[..., :self.config.vocab_size]
        return logits, written._replace(layers=tuple(layers))


def reorder_cache(written: DecodeState, hypotheses: jax.Array) -> DecodeState:
    """Goes on from some hypotheses of each source, by number [B, K]."""
    count, width = hypotheses.shape
    rows = (jnp.arange(count)[:, None] * width + hypotheses).reshape(-1)
    return written._replace(layers=tuple(cache._replace(key=cache.key[rows], value=cache.value[rows])
                                         for cache in written.layers))
