"""The pretraining objective: rows are masked, and every head predicts its targets."""
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from spanbert_jax.masking import MaskedRows, Masker
from spanbert_jax.model import PretrainingLogits, SpanBert
from spanbert_jax.model.losses import LossSums, add_rows, cross_entropy, weighted_sums
from spanbert_jax.pretraining.config import ObjectiveSettings
from spanbert_jax.training.mesh import Rules, mesh_axes
from spanbert_jax.training.workload import Batch, Objective


def mask_batch(masker: Masker, key: jax.Array, batch: Batch, mesh: Mesh, rules: Rules,
               first: jax.Array | int = 0) -> MaskedRows:
    """Masks a batch on the devices that hold its rows; row i uses `key` folded with `first` + i.

    The masker loops until its last row is done. Inside `shard_map` each device loops over its own rows, without
    communication. The mask of a row depends on the key and its index, not on the mesh.
    """
    def mask(index: jax.Array, rows: Batch) -> MaskedRows:
        return masker(jax.vmap(lambda i: jax.random.fold_in(key, i))(index), rows)

    rows = PartitionSpec(mesh_axes(rules, "batch"))
    spread = jax.shard_map(mask, mesh=mesh, in_specs=(rows, rows), out_specs=rows, check_vma=False)
    return spread(first + jnp.arange(len(batch["tokens"])), batch)


def apply_model(model: SpanBert, params: Any, rows: MaskedRows, batch: Batch,
                dropout_key: jax.Array | None = None) -> Any:
    """Logits of masked rows; dropout is applied if a key is given."""
    rngs = {} if dropout_key is None else {"dropout": dropout_key}
    return model.apply(
        {"params": params}, rows.inputs, batch["segments"], batch["token_types"], positions=rows.positions,
        left=rows.left, right=rows.right, place=rows.place, deterministic=dropout_key is None, rngs=rngs)


def pretraining_objective(model: SpanBert, masker: Masker, objectives: ObjectiveSettings, mesh: Mesh,
                          rules: Rules) -> Objective:
    """Losses of masked tokens, span boundaries and next sentences, with the weights of `config.objectives`.

    There is no boundary loss if the masking scheme forms no spans.
    """
    def prepare_inputs(key: jax.Array, batch: Batch) -> tuple[MaskedRows, Batch]:
        return mask_batch(masker, key, batch, mesh, rules), batch

    def counts(inputs: tuple[MaskedRows, Batch]) -> dict[str, jax.Array]:
        rows, batch = inputs
        return {name: jnp.sum(weight) for name, weight in target_weights(rows, batch["next_sentence"]).items()}

    def loss_sums(params: Any, inputs: tuple[MaskedRows, Batch], key: jax.Array) -> dict[str, LossSums]:
        rows, batch = inputs
        logits = apply_model(model, params, rows, batch, key)
        if not masker.forms_spans:
            logits = logits._replace(boundary=None)
        return row_sums(logits, rows, batch["next_sentence"])

    def loss(sums: Mapping[str, LossSums], counts: Mapping[str, jax.Array]) -> jax.Array:
        return total_loss(sums, counts, objectives.boundary_weight, objectives.reference_denominators)

    return Objective(prepare_inputs, counts, loss_sums, loss)


def target_weights(rows: MaskedRows, next_sentence: jax.Array) -> dict[str, jax.Array]:
    """Weights of the targets, 1 or 0, by objective; `next_sentence` [B]: 0 continuation, 1 random, -1 none."""
    return {"masked": rows.weights, "boundary": rows.boundary_weights,
            "next_sentence": (next_sentence >= 0).astype(jnp.float32)}


def objective_sums(logits: PretrainingLogits, rows: MaskedRows, next_sentence: jax.Array) -> dict[str, LossSums]:
    """Loss sums of every objective over all rows; arguments as `row_sums` takes them."""
    return {name: add_rows(sums) for name, sums in row_sums(logits, rows, next_sentence).items()}


def row_sums(logits: PretrainingLogits, rows: MaskedRows, next_sentence: jax.Array) -> dict[str, LossSums]:
    """Loss sums of each row, [B], of every objective that the model has a head for.

    `logits`, [B, M, V], [B, M, V] and [B, 2], are computed from `rows`; `next_sentence` is as in `target_weights`.
    """
    targets = {"masked": rows.targets, "boundary": rows.targets, "next_sentence": jnp.maximum(next_sentence, 0)}
    weights = target_weights(rows, next_sentence)
    return {name: weighted_sums(*cross_entropy(values, targets[name]), weights[name])
            for name, values in logits._asdict().items() if values is not None}


def total_loss(sums: Mapping[str, LossSums], counts: Mapping[str, jax.Array], boundary_weight: float,
               reference_denominators: bool) -> jax.Array:
    """Masked-token loss plus weighted boundary loss plus next-sentence loss, each a mean over its own targets.

    The paper's formula sums both losses of a token. The reference's code divides each by its own count, as here. The
    reference then averages over devices; here sums over the whole batch are divided once, so that the loss does not
    depend on the number of devices.

    Args:
      sums: loss sums over the batch or a part of it, by objective; or of each row, [B], with `counts` [B].
      counts: targets in the whole batch, by objective: the losses of the parts add up to the loss of the batch.
      reference_denominators: divide the boundary loss by its count plus one, as the reference does.
    """
    weights = {"masked": 1.0, "boundary": boundary_weight, "next_sentence": 1.0}
    extra = {"boundary": 1.0 if reference_denominators else 0.0}
    return jnp.asarray(sum(weights[name] * value.loss / jnp.maximum(counts[name] + extra.get(name, 0.0), 1.0)
                           for name, value in sums.items()))
