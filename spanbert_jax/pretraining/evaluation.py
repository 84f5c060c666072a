"""Evaluation on held-out rows, under a mask that is the same at every evaluation."""
import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import rich.table
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spanbert_jax.common.console import make_table
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.common.settings import to_dict
from spanbert_jax.corpus import Corpus, RowSource
from spanbert_jax.masking import MaskedRows, Masker, MaskingSettings
from spanbert_jax.model import SpanBert
from spanbert_jax.model.layers import position_ids
from spanbert_jax.model.losses import LossSums, cross_entropy
from spanbert_jax.pretraining.config import PretrainingEvaluationSettings
from spanbert_jax.pretraining.objective import apply_model, mask_batch, objective_sums
from spanbert_jax.training.batches import device_batches
from spanbert_jax.training.mesh import Rules, batch_sharding
from spanbert_jax.training.step import mean_metrics
from spanbert_jax.training.workload import Batch, ShouldStop

LONGEST = 10  # longer spans, and later positions in a span, are counted in the last bucket
# The first position of each bucket of positions in a block.
_FIRST_POSITIONS = (0, 128, *(512 << power for power in range(8)))
_MASK_SEED = 1_234_567  # not the seed of the run: all runs over a corpus are evaluated on the same masks


def make_evaluate_batch(model: SpanBert, masker: Masker, log_unigram: np.ndarray, mesh: Mesh,
                        rules: Rules) -> Callable[[Any, Batch, jax.Array], dict[str, LossSums]]:
    """Builds the jitted evaluation: (params, batch, index of its first row) -> sums over its targets.

    The sums are those of the objectives; "by_length" and "by_place", with one entry for each span length and position
    in a span up to `LONGEST`; "by_position", with one for each bucket of positions in a block that a row can have; and
    "unigram", the loss of predicting token frequencies of the training corpus.
    """
    log_frequency = jnp.asarray(log_unigram)

    def evaluate_batch(params: Any, batch: Batch, first: jax.Array) -> dict[str, LossSums]:
        with nn.logical_axis_rules(rules):
            # The mask of a row depends only on its index, so the batch size does not matter.
            rows = mask_batch(masker, jax.random.key(_MASK_SEED, impl="threefry2x32"), batch, mesh, rules, first)
            logits = apply_model(model, params, rows, batch)
            sums = dict(objective_sums(logits, rows, batch["next_sentence"]))
            loss, correct = cross_entropy(logits.masked, rows.targets)
        sums["by_length"] = _by_bucket(loss, correct, rows, rows.span_length - 1)
        sums["by_place"] = _by_bucket(loss, correct, rows, rows.place)
        first = jnp.asarray([start for start in _FIRST_POSITIONS if start < batch["segments"].shape[1]])
        position = jnp.take_along_axis(position_ids(batch["segments"]), rows.positions, axis=1)
        bucket = jnp.searchsorted(first, position, side="right") - 1
        sums["by_position"] = _by_bucket(loss, correct, rows, bucket, len(first))
        unigram = -log_frequency[rows.targets] * rows.weights
        sums["unigram"] = LossSums(jnp.sum(unigram), jnp.zeros(()), jnp.sum(rows.weights))
        return sums

    return jax.jit(evaluate_batch, in_shardings=(None, batch_sharding(mesh, rules), None),
                   out_shardings=NamedSharding(mesh, PartitionSpec()))


def _by_bucket(loss: jax.Array, correct: jax.Array, rows: MaskedRows, bucket: jax.Array,
               count: int = LONGEST) -> LossSums:
    """Sums of masked-token losses [B, M] by bucket; fields [count]."""
    member = jax.nn.one_hot(jnp.minimum(bucket, count - 1), count) * rows.weights[..., None]
    return LossSums(*(jnp.einsum("BM,BMK->K", values, member) for values in (loss, correct, jnp.ones_like(loss))))


def log_unigram(corpus: Corpus) -> np.ndarray:
    """[V] log frequency of each token in the training rows; one is added to every count."""
    counts = corpus.unigram.astype(np.float64) + 1
    return np.log(counts / counts.sum()).astype(np.float32)


class _PaddedRows:
    """A row source in which row -1 is padding."""

    def __init__(self, source: RowSource):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        padding, rows = indices < 0, {}
        for name, values in self._source.rows(np.where(padding, 0, indices)).items():
            mask = padding.reshape(-1, *[1] * (values.ndim - 1))
            rows[name] = np.where(mask, values.dtype.type(-1 if name == "next_sentence" else 0), values)
        return rows


def evaluate_params(evaluate_batch: Callable, params: Any, source: RowSource, settings: PretrainingEvaluationSettings,
                    mesh: Mesh, rules: Rules, should_stop: ShouldStop = lambda: None) -> dict[str, Any] | None:
    """Metrics over the validation rows, as `summarize` returns them.

    Args:
      evaluate_batch: from `make_evaluate_batch`, jitted or compiled.
      settings: with the rows evaluated at once (the last batch is filled with padding rows), the most rows that are
        used, and the masks of each row.
      should_stop: called after each batch; true ends the evaluation, which then returns None.
    """
    count, size, total = min(len(source), settings.max_rows), settings.batch_size, dict[str, LossSums]()
    batches_of_mask = math.ceil(count / size)

    def indices(number: int) -> np.ndarray:
        rows = number % batches_of_mask * size + np.arange(size)
        return np.where(rows < count, rows, -1)

    batches = device_batches(_PaddedRows(source), indices, range(settings.masks * batches_of_mask), mesh, rules)
    with contextlib.closing(batches):
        for batch in batches:
            mask, number = divmod(batch.number, batches_of_mask)
            first = mask * count + number * size  # rows of the second mask have the indices after those of the first
            sums = jax.device_get(evaluate_batch(params, batch.arrays, np.int32(first)))
            # In float64: float32 loses digits over many batches.
            sums = jax.tree.map(lambda x: np.asarray(x, np.float64), sums)
            total = jax.tree.map(np.add, total, sums) if total else sums
            if should_stop():
                return None
    return summarize(total)


def summarize(total: dict[str, LossSums]) -> dict[str, Any]:
    """Means from sums.

    Returns:
      "masked_loss" (nats) and "masked_accuracy"; the same for "boundary" and "next_sentence" if the model has these
      heads and there are targets, with their number "boundary_targets" and "next_sentence_targets"; "perplexity" of the
      masked tokens; "unigram_loss" on the same tokens; "masked_tokens", their number; "accuracy_by_length" and
      "accuracy_by_place", lists of the masked-token accuracy for spans of 1, 2, ... tokens and for the 1st, 2nd, ...
      token of a span, with the numbers of tokens "tokens_by_length" and "tokens_by_place". Their last entry is for that
      many and more; an accuracy is None where there are no tokens. For rows of more than 128 tokens also
      "loss_by_position" and "tokens_by_position" for the positions in a block from each of "first_positions" up to the
      next.
    """
    by_position = total.pop("by_position")
    buckets = {"by_length": total.pop("by_length"), "by_place": total.pop("by_place")}
    unigram, masked = total.pop("unigram"), total.pop("masked")
    others = {name: sums for name, sums in total.items() if sums.count}
    metrics: dict[str, Any] = {name: float(value) for name, value in mean_metrics({"masked": masked} | others).items()}
    metrics |= {f"{name}_targets": int(sums.count) for name, sums in others.items()}
    metrics["perplexity"] = math.exp(min(metrics["masked_loss"], 700))
    metrics["unigram_loss"] = float(unigram.loss) / max(float(unigram.count), 1)
    metrics["masked_tokens"] = int(unigram.count)
    for name, sums in buckets.items():
        correct, count = np.asarray(sums.correct).tolist(), np.asarray(sums.count).tolist()
        metrics[f"accuracy_{name}"] = [hits / tokens if tokens else None for hits, tokens in zip(correct, count)]
        metrics[f"tokens_{name}"] = [int(tokens) for tokens in count]
    if len(by_position.count) > 1:
        loss, count = np.asarray(by_position.loss).tolist(), np.asarray(by_position.count).tolist()
        metrics["first_positions"] = list(_FIRST_POSITIONS[:len(count)])
        metrics["loss_by_position"] = [nats / tokens if tokens else None for nats, tokens in zip(loss, count)]
        metrics["tokens_by_position"] = [int(tokens) for tokens in count]
    return metrics


def format_metrics(metrics: Mapping[str, Any]) -> str:
    """An evaluation as one line."""
    text = (f"masked-token loss {metrics['masked_loss']:.3f} nats (unigram {metrics['unigram_loss']:.3f}), "
            f"perplexity {metrics['perplexity']:,.1f}, accuracy {metrics['masked_accuracy']:.1%} of "
            f"{metrics['masked_tokens']:,}")
    if "boundary_loss" in metrics:
        text += (f"; boundary loss {metrics['boundary_loss']:.3f}, accuracy {metrics['boundary_accuracy']:.1%} of "
                 f"{metrics['boundary_targets']:,}")
    if "next_sentence_loss" in metrics:
        text += (f"; next-sentence accuracy {metrics['next_sentence_accuracy']:.1%} of "
                 f"{metrics['next_sentence_targets']:,}")
    return text


def describe_masked_rows(metrics: Mapping[str, Any]) -> str:
    """Rows and masks of an evaluation, and the masking: scheme, rate, and fields that differ from their defaults."""
    defaults = to_dict(MaskingSettings())
    masking = ", ".join(f"{name}={value}" for name, value in metrics["masking"].items()
                        if name in ("scheme", "rate") or value != defaults[name])
    count = metrics.get("masks", 1)  # results of earlier versions do not have it
    masks = f" with {count:,} masks each" * (count > 1)
    return f"{format_plural(metrics['rows'], 'held-out row')}{masks}, masking {masking}"


def position_table(metrics: Mapping[str, Any]) -> rich.table.Table | None:
    """Masked-token loss and number of tokens by position in the block; None for short rows."""
    if not (first := metrics.get("first_positions")):
        return None
    table = make_table("positions", "nats", "tokens", title="Masked-token loss", right=("nats", "tokens"))
    last = [f"-{following - 1:,}" for following in first[1:]] + [" and later"]
    for start, end, loss, tokens in zip(first, last, metrics["loss_by_position"], metrics["tokens_by_position"]):
        table.add_row(f"{start:,}{end}", f"{loss:.3f}" if tokens else "-", f"{tokens:,}")
    return table


def accuracy_table(metrics: Mapping[str, Any]) -> rich.table.Table:
    """Masked-token accuracy and number of tokens by span length and by position in the span."""
    table = make_table("tokens", "in spans of this length", "at this place in a span", title="Masked-token accuracy")
    columns = [[f"{accuracy:.1%} of {tokens:,}" if tokens else "-" for accuracy, tokens in
                zip(metrics[f"accuracy_{name}"], metrics[f"tokens_{name}"])] for name in ("by_length", "by_place")]
    for number, cells in enumerate(zip(*columns), 1):
        table.add_row(f"{number} and more" if number == LONGEST else str(number), *cells)
    return table
