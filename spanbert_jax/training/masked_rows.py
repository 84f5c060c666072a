"""The objective of pretraining: rows are masked, and what was masked is predicted."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from spanbert_jax.model import SpanBert
from spanbert_jax.pretraining import MaskedRows, Masker
from spanbert_jax.pretraining.objectives import Term, objective_terms, target_weights, total_loss
from spanbert_jax.training.mesh import Rules, batch_axes
from spanbert_jax.training.objective import Batch, Objective


def mask_batch(masker: Masker, key: jax.Array, batch: Batch, mesh: Mesh, rules: Rules,
               first: jax.Array | int = 0) -> MaskedRows:
    """Masks a batch, each row under a key of its own, on the devices that hold the rows.

    Row i of the batch is masked under `key` folded with `first` + i.

    The masker loops until its last row is done; inside `shard_map` that concerns a device's own rows alone, and nothing
    is said between devices. A row's mask depends on the key and its index, not on the mesh.
    """
    def mask(index: jax.Array, rows: Batch) -> MaskedRows:
        return masker(jax.vmap(lambda i: jax.random.fold_in(key, i))(index), rows)

    rows = PartitionSpec(batch_axes(rules))
    spread = jax.shard_map(mask, mesh=mesh, in_specs=(rows, rows), out_specs=rows, check_vma=False)
    return spread(first + jnp.arange(len(batch["tokens"])), batch)


def apply_model(model: SpanBert, params: Any, rows: MaskedRows, batch: Batch,
                dropout_key: jax.Array | None = None) -> Any:
    """The logits of masked rows; without a key, without dropout."""
    rngs = {} if dropout_key is None else {"dropout": dropout_key}
    return model.apply(
        {"params": params}, rows.inputs, batch["segments"], batch["token_types"], positions=rows.positions,
        left=rows.left, right=rows.right, place=rows.place, deterministic=dropout_key is None, rngs=rngs)


def pretraining_objective(model: SpanBert, masker: Masker, objectives: Any, mesh: Mesh, rules: Rules) -> Objective:
    """Masked tokens, span boundaries and next sentences, weighted as `config.objectives` says."""
    def draw(key: jax.Array, batch: Batch) -> tuple[MaskedRows, Batch]:
        return mask_batch(masker, key, batch, mesh, rules), batch

    def counts(inputs: tuple[MaskedRows, Batch]) -> dict[str, jax.Array]:
        rows, batch = inputs
        return {name: jnp.sum(weight) for name, weight in target_weights(rows, batch["next_sentence"]).items()}

    def terms(params: Any, inputs: tuple[MaskedRows, Batch], key: jax.Array) -> dict[str, Term]:
        rows, batch = inputs
        return objective_terms(apply_model(model, params, rows, batch, key), rows, batch["next_sentence"])

    def loss(terms: Mapping[str, Term], counts: Mapping[str, jax.Array]) -> jax.Array:
        return total_loss(terms, counts, objectives.boundary_weight, objectives.reference_denominators)

    return Objective(draw, counts, terms, loss)
