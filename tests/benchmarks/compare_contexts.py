"""Whether a pretrained model uses distant context: the loss of held-out tokens with and without it.

  python -m tests.benchmarks.compare_contexts --workdir runs/novels4096 --context 512 --masks 4

The same masked tokens are predicted twice: from the whole row, and from the part of this many tokens that they lie in,
as if the row had been cut. The table has both losses by position in the row, in nats, with the difference and its
standard error over rows.
"""
import argparse
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.progress
import rich.table

from spanbert_jax.checkpoints import Checkpointer
from spanbert_jax.common.settings import from_dict
from spanbert_jax.corpus import open_corpus
from spanbert_jax.model import SpanBert
from spanbert_jax.model.layers import position_ids
from spanbert_jax.model.losses import cross_entropy
from spanbert_jax.pretraining.config import PretrainingConfig
from spanbert_jax.pretraining.objective import apply_model, mask_batch
from spanbert_jax.pretraining.workload import PretrainingWorkload, build
from spanbert_jax.training.config import load_values
from spanbert_jax.training.experiment import Experiment
from spanbert_jax.training.workload import Batch

_MASK_SEED = 7


def main() -> None:
    """Evaluates, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="of a pretraining run with long rows")
    parser.add_argument("--context", type=int, default=512, help="tokens of a part")
    parser.add_argument("--masks", type=int, default=4, help="of each row")
    args = parser.parse_args()
    config = from_dict(PretrainingConfig, load_values(args.workdir))
    experiment = build(config, open_corpus(config.data.path or args.workdir / "data"), jax.devices()[:1])
    with jax.set_mesh(experiment.mesh), Checkpointer(args.workdir, read_only=True) as checkpointer:
        params = checkpointer.restore_params(checkpointer.latest_valid(), experiment.abstract_state.params)
        sums = evaluate(experiment, params, args.context, args.masks)
    first = [0, 128, *(512 * 2**power for power in range(16))][:sums.shape[1]]
    table = rich.table.Table("positions", "tokens", "whole row", f"{args.context} tokens", "difference", "error")
    for start, rows in [*zip(map("from {:,}".format, first), sums.swapaxes(0, 1)), ("all", sums.sum(1)),
                        (f"from {args.context:,}", sums[:, np.array(first) >= args.context].sum(1))]:
        whole, cut, tokens = rows.sum(0)
        # The difference is a ratio of sums over rows; its error follows from the rows' deviations from it.
        deviations = rows[:, 1] - rows[:, 0] - (cut - whole) / tokens * rows[:, 2]
        table.add_row(start, f"{tokens:,.0f}", f"{whole / tokens:.4f}", f"{cut / tokens:.4f}",
                      f"{(cut - whole) / tokens:+.4f}", f"{np.sqrt(np.sum(deviations**2)) / tokens:.4f}")
    rich.console.Console(width=100).print(table)


def evaluate(experiment: Experiment[PretrainingWorkload], params: dict, context: int, masks: int) -> np.ndarray:
    """Sums of each held-out row [N, K, 3] over K ranges of positions: losses with and without context, and tokens."""
    model, mesh, rules = experiment.model, experiment.mesh, experiment.config.mesh.rules
    assert isinstance(model, SpanBert)
    masker, source = experiment.workload.masker, experiment.workload.held_out
    ranges = 2 + max(0, (source.rows(np.zeros(1, int))["tokens"].shape[1] - 1) // 512).bit_length()

    @jax.jit
    def row_sums(params: dict, batch: Batch, index: jax.Array) -> jax.Array:
        with nn.logical_axis_rules(rules):
            rows = mask_batch(masker, jax.random.key(_MASK_SEED), batch, mesh, rules, index)
            places = position_ids(batch["segments"])
            parts = -(-places.shape[1] // context)
            cut = jnp.where(batch["segments"] > 0, batch["segments"] * parts + places // context, 0).astype(jnp.int32)
            losses = [cross_entropy(apply_model(model, params, rows, batch | {"segments": segments}).masked,
                                    rows.targets)[0] for segments in (batch["segments"], cut)]
        position = jnp.take_along_axis(places, rows.positions, axis=1)[0]
        edges = jnp.asarray([128, *(512 * 2**power for power in range(ranges - 2))])
        member = jax.nn.one_hot(jnp.searchsorted(edges, position, side="right"), ranges) * rows.weights[0][:, None]
        return jnp.stack([values @ member for values in (losses[0][0], losses[1][0], jnp.ones_like(losses[0][0]))], 1)

    total = np.zeros((len(source), ranges, 3))
    for mask in rich.progress.track(range(masks), "evaluating"):
        for row in range(len(source)):
            batch = source.rows(np.array([row]))
            total[row] += jax.device_get(row_sums(params, batch, np.int32(mask * len(source) + row)))
    return total


if __name__ == "__main__":
    main()
