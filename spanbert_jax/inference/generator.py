"""Texts written for examples, compiled once for each of a few lengths of sources."""
from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from spanbert_jax.generation.incremental import IncrementalDecoder, unstack_layers
from spanbert_jax.generation.search import generate
from spanbert_jax.inference.model_folder import FineTuned
from spanbert_jax.inference.predictor import Predictor, Program
from spanbert_jax.model import EncoderDecoder
from spanbert_jax.tasks.features import Features
from spanbert_jax.tasks.packing import PackedRows, rounded_length


class Generator(Predictor):
    """A fine-tuned network that writes, on all devices of this process."""

    def _program(self) -> Program:
        model, task = self._fine_tuned.model, self.task
        settings, seed = task.generation(self._fine_tuned.tokenizer), task.settings["seed"]

        def written(params: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            keys = jax.vmap(lambda source: jax.random.fold_in(jax.random.key(seed), source))(batch["source"])
            pieces, scores = generate(IncrementalDecoder(model, params), batch["tokens"], batch["segments"], settings, keys)
            return {"pieces": pieces, "scores": scores}

        return written

    def _laid_out(self, params: Any) -> Any:
        return jax.jit(unstack_layers)(params)

    def outputs(self, features: Features) -> dict[str, Any]:
        """"texts" and "scores" of features, each of a source: those of much the same length go together."""
        length = self.task.settings["target_length"]
        pieces, scores = np.zeros((len(features), length), np.int32), np.zeros(len(features), np.float32)
        lengths = np.array([rounded_length(length) for length in features.lengths.tolist()], np.int64)
        for bucket in np.unique(lengths).tolist():
            chosen = np.flatnonzero(lengths == bucket)
            rows = PackedRows(features, [[number] for number in chosen.tolist()], bucket, self._pad)
            for numbers, outputs in self._in_batches(rows):
                real = chosen[numbers[numbers >= 0]]
                pieces[real], scores[real] = outputs["pieces"][:len(real)], outputs["scores"][:len(real)]
        tokenizer = self.task.target_tokenizer(self._fine_tuned.tokenizer)
        texts = tokenizer.decode_batch(pieces.tolist(), skip_special_tokens=True)
        return {"texts": [text.strip() for text in texts], "scores": scores.tolist()}

    def _inputs(self, rows: PackedRows, numbers: np.ndarray) -> dict[str, np.ndarray]:
        batch = rows.rows(numbers)
        # What is drawn for a source depends on nothing but its pieces.
        source = [zlib.crc32(tokens.tobytes()) for tokens in batch["tokens"]]
        return {name: batch[name] for name in ("tokens", "segments")} | {"source": np.array(source, np.uint32)}


def make_predictor(fine_tuned: FineTuned, batch_size: int = 32) -> Predictor:
    """What predicts with a network, whether it writes or not; `batch_size` as `Predictor` has it."""
    return (Generator if isinstance(fine_tuned.model, EncoderDecoder) else Predictor)(fine_tuned, batch_size)
