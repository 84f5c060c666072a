"""How good a network is on held-out rows, under a mask that is the same at every evaluation."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spanbert_jax.corpus import Corpus, RowSource
from spanbert_jax.masking import MaskedRows, Masker
from spanbert_jax.model import SpanBert
from spanbert_jax.model.losses import LossSums, cross_entropy
from spanbert_jax.pretraining.objective import apply_model, mask_batch, objective_sums
from spanbert_jax.training.batches import global_array, local_batch_indices
from spanbert_jax.training.mesh import Rules, batch_sharding
from spanbert_jax.training.objective import Batch
from spanbert_jax.training.step import mean_metrics

# Longer spans, and later places in a span, are counted together with this one.
LONGEST = 10
# Not the seed of a run: every run over a corpus is measured on the same masks.
_MASK_SEED = 1_234_567


def make_evaluate_batch(model: SpanBert, masker: Masker, log_unigram: np.ndarray, mesh: Mesh,
                        rules: Rules) -> Callable[[Any, Batch, jax.Array], dict[str, Any]]:
    """A jitted function from parameters, a batch and its first row's index to sums over its targets.

    The sums are `LossSums`: those of the objectives, "by_length" and "by_place" with one entry for each span length and
    place in a span up to `LONGEST`, and "unigram", the loss of guessing from the training corpus's piece frequencies.
    """
    log_unigram = jnp.asarray(log_unigram)

    def evaluate_batch(params: Any, batch: Batch, first: jax.Array) -> dict[str, Any]:
        with nn.logical_axis_rules(rules):
            # A row's mask depends on the row's index alone, so the batch size changes nothing.
            rows = mask_batch(masker, jax.random.key(_MASK_SEED, impl="threefry2x32"), batch, mesh, rules, first)
            logits = apply_model(model, params, rows, batch)
            terms: dict[str, Any] = dict(objective_sums(logits, rows, batch["next_sentence"]))
            loss, correct = cross_entropy(logits.masked, rows.targets)
        terms["by_length"] = _by_bucket(loss, correct, rows, rows.span_length - 1)
        terms["by_place"] = _by_bucket(loss, correct, rows, rows.place)
        guess = -log_unigram[rows.targets] * rows.weights
        terms["unigram"] = LossSums(jnp.sum(guess), jnp.zeros(()), jnp.sum(rows.weights))
        return terms

    return jax.jit(evaluate_batch, in_shardings=(None, batch_sharding(mesh, rules), None),
                   out_shardings=NamedSharding(mesh, PartitionSpec()))


def _by_bucket(loss: jax.Array, correct: jax.Array, rows: MaskedRows, bucket: jax.Array) -> LossSums:
    """Sums of masked-token scores [B, M] by bucket; fields [LONGEST]."""
    member = jax.nn.one_hot(jnp.minimum(bucket, LONGEST - 1), LONGEST) * rows.weights[..., None]
    return LossSums(*(jnp.einsum("BM,BMK->K", values, member) for values in (loss, correct, jnp.ones_like(loss))))


def log_unigram(corpus: Corpus) -> np.ndarray:
    """Log probability [V] of each piece by its count in the training rows, plus one so that none is impossible."""
    counts = corpus.unigram.astype(np.float64) + 1
    return np.log(counts / counts.sum()).astype(np.float32)


def held_out_batches(source: RowSource, batch_size: int, max_rows: int, mesh: Mesh,
                     rules: Rules) -> Iterator[tuple[int, Batch]]:
    """The validation rows in order, as (index of the first row, batch); the last batch is filled with padding rows.

    Every process reads the rows of its own devices.
    """
    rows = min(len(source), max_rows)
    sharding = batch_sharding(mesh, rules)
    places = local_batch_indices(sharding, batch_size)
    for first in range(0, rows, batch_size):
        # The first row again where there is none, so that a process without any has something to fill.
        beyond = first + places >= rows
        batch = {}
        for name, values in source.rows(np.where(beyond, 0, first + places)).items():
            padding = beyond.reshape(-1, *[1] * (values.ndim - 1))
            values = np.where(padding, -1 if name == "next_sentence" else 0, values)
            batch[name] = global_array(sharding, values, places, batch_size)
        yield first, batch


def evaluate_params(evaluate_batch: Callable, params: Any, source: RowSource, batch_size: int, max_rows: int,
                    mesh: Mesh, rules: Rules, on_batch: Callable[[], bool | None] = lambda: None,
                    ) -> dict[str, Any] | None:
    """Figures over the validation rows, as `summarize` gives them.

    Args:
      evaluate_batch: made by `make_evaluate_batch`.
      batch_size: rows computed at once.
      max_rows: the first so many of the rows are used.
      on_batch: called after each batch, for progress; true ends the evaluation, which then gives None.
    """
    total = None
    for first, batch in held_out_batches(source, batch_size, max_rows, mesh, rules):
        terms = jax.device_get(evaluate_batch(params, batch, np.int32(first)))
        # Sums over many batches outgrow float32's digits, so they are added up in float64.
        terms = jax.tree.map(lambda x: np.asarray(x, np.float64), terms)
        total = terms if total is None else jax.tree.map(np.add, total, terms)
        if on_batch():
            return None
    return summarize(total)


def summarize(total: dict[str, Any]) -> dict[str, Any]:
    """Means from sums.

    Returns:
      "masked_loss" (nats), "masked_accuracy", the same for "boundary" and "next_sentence" where there are such heads,
      "perplexity" of the masked tokens, "unigram_loss" on the same tokens, "masked_tokens" (how many), and
      "accuracy_by_length" and "accuracy_by_place": lists of the masked-token accuracy for spans of 1, 2, ... tokens and
      for the 1st, 2nd, ... token of a span, the last entry for that many and more, None where there are none.
    """
    buckets = {"by_length": total.pop("by_length"), "by_place": total.pop("by_place")}
    unigram = total.pop("unigram")
    figures = {name: float(value) for name, value in mean_metrics(total).items()}
    figures["perplexity"] = math.exp(min(figures["masked_loss"], 700))
    figures["unigram_loss"] = float(unigram.loss / max(unigram.count, 1))
    figures["masked_tokens"] = int(unigram.count)
    for name, term in buckets.items():
        figures[f"accuracy_{name}"] = [
            float(correct / count) if count else None for correct, count in zip(term.correct, term.count)]
    return figures
