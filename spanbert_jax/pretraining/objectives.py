"""What pretraining minimises: masked tokens, span boundaries, next sentences."""
from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from spanbert_jax.model import PretrainingLogits
from spanbert_jax.pretraining.masking import MaskedRows


class Term(NamedTuple):
    """One objective's sums over its targets: float32 scalars that add up over devices and microbatches."""
    loss: jax.Array  # nats
    correct: jax.Array | None  # None where no guess is right or wrong, as in regression
    count: jax.Array


def score(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy in nats and whether no other guess is better, a target. [..., V], [...] -> [...], [...] float32."""
    loss = optax.losses.softmax_cross_entropy_with_integer_labels(logits, targets)
    # Comparing with the maximum is many times cheaper than finding where it stands.
    target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return loss, (target >= jnp.max(logits, axis=-1)).astype(jnp.float32)


def weighted_sums(losses: jax.Array, correct: jax.Array | None, weights: jax.Array) -> Term:
    """The sums over targets of which each counts as much as its weight. All of one shape, float32."""
    return Term(jnp.sum(losses * weights), None if correct is None else jnp.sum(correct * weights), jnp.sum(weights))


def target_weights(rows: MaskedRows, next_sentence: jax.Array) -> dict[str, jax.Array]:
    """Weight of each target, 1 or 0, by objective. `next_sentence` [B] is -1 where there is no label."""
    return {"masked": rows.weights, "boundary": rows.boundary_weights,
            "next_sentence": (next_sentence >= 0).astype(jnp.float32)}


def objective_terms(logits: PretrainingLogits, rows: MaskedRows, next_sentence: jax.Array) -> dict[str, Term]:
    """The sums of every objective that the network has a head for.

    Args:
      logits: of the heads, [B, M, V], [B, M, V], [B, 2].
      rows: the masked rows that the logits were computed from.
      next_sentence: [B] labels, 0 continuation, 1 random, -1 none.
    """
    targets = {"masked": rows.targets, "boundary": rows.targets, "next_sentence": jnp.maximum(next_sentence, 0)}
    weights = target_weights(rows, next_sentence)
    terms = {}
    for name, values in logits._asdict().items():
        if values is not None:
            terms[name] = weighted_sums(*score(values, targets[name]), weights[name])
    return terms


def total_loss(terms: Mapping[str, Term], counts: Mapping[str, jax.Array], boundary_weight: float,
               reference_denominators: bool) -> jax.Array:
    """Masked-token loss plus weighted boundary loss plus next-sentence loss, each a mean over its own targets.

    The paper's formula sums both losses of a token; the reference's code divides each by its own count, and so does
    this. The reference averages over the ratios of its devices; here sums over the whole batch are divided once, so
    that the loss does not depend on the number of devices.

    Args:
      terms: sums over a part of the batch, or all of it.
      counts: targets in the whole batch by objective; the losses of the parts then add up to the batch's.
      boundary_weight: of the boundary loss.
      reference_denominators: divide the boundary loss by its count plus one, as the reference does.
    """
    weights = {"masked": 1.0, "boundary": boundary_weight, "next_sentence": 1.0}
    extra = {"boundary": 1.0 if reference_denominators else 0.0}
    return sum(weights[name] * term.loss / jnp.maximum(counts[name] + extra.get(name, 0.0), 1.0)
               for name, term in terms.items())
