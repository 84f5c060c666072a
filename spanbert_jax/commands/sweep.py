"""Fine-tune with several seeds and settings, and compare them. After a stop, the same command continues the sweep.

  spanbert-jax sweep --config configs/sentiment.py:small=true --seeds 3 --workdir runs/sentiment
  spanbert-jax sweep --config configs/squad.py --workdir runs/grid --seeds 2 \\
      --config.task.train=train-v1.1.json --config.task.dev=dev-v1.1.json \\
      --grid optimizer.learning_rate=1e-5,2e-5,3e-5 --grid train.batch_size=16,32

Every combination of values runs with every seed, one run after the other, each in its own workdir. All runs hold out
the same examples. The table shows mean and standard deviation over the seeds, the best dev metric first.
"""
from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import ml_collections
import rich.table

from spanbert_jax.cluster.exit_codes import DONE, STOPPED
from spanbert_jax.commands.config_files import load_config
from spanbert_jax.commands.train import parse as parse  # `main` calls it
from spanbert_jax.common.console import make_console, make_table
from spanbert_jax.training.renames import new_name

if TYPE_CHECKING:
    from spanbert_jax.finetuning.sweep import Row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this command."""
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]", help="config file of a task")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="parent directory of the runs' workdirs")
    parser.add_argument("--seeds", type=int, default=1, metavar="N",
                        help="number of seeds of each combination, counted from config.seed (default: %(default)s)")
    parser.add_argument("--grid", action="append", default=[], type=axis, metavar="FIELD=VALUE,VALUE",
                        help="config field and the values to try; may be repeated for other fields")


def axis(text: str) -> tuple[str, list[str]]:
    """A field and its values."""
    field, _, values = text.partition("=")
    if not field or not all(values.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r}: write it as optimizer.learning_rate=1e-5,2e-5")
    return field.removeprefix("config."), values.split(",")


def run(args: argparse.Namespace) -> int:
    """Runs the sweep, and prints its table."""
    from spanbert_jax.common.errors import UserError
    from spanbert_jax.finetuning.config import as_finetuning_config, task_of
    from spanbert_jax.finetuning.sweep import sweep
    loaded = load_config(args.config, args.overrides)
    if "task" not in loaded:
        raise UserError(f"--config={args.config}: configures pretraining; only tasks can be swept")
    config = as_finetuning_config(loaded)
    fields = [new_name(field) for field, _ in args.grid]
    if len(set(fields)) < len(fields) or "seed" in fields:
        raise UserError(f"--grid: fields {', '.join(fields)}: give each field once, and seeds by --seeds")
    if args.seeds < 1:
        raise UserError(f"--seeds={args.seeds}: must be at least 1")

    def make_config(overrides: Sequence[str]) -> ml_collections.ConfigDict:
        return load_config(args.config, [*args.overrides, *overrides])

    rows = sweep(make_config, dict(args.grid), range(config.seed, config.seed + args.seeds), pathlib.Path(args.workdir))
    if rows is None:
        print("Stopped and saved. Run the same command again to continue.")
        return STOPPED
    make_console().print(table_of(rows, args.seeds, task_of(config).metric))
    return DONE


def table_of(rows: Sequence[Row], seeds: int, metric: str) -> rich.table.Table:
    """Settings with mean and deviation of each part."""
    parts = list(rows[0].scores)
    table = make_table(*rows[0].settings, *parts, title=f"{metric}, {seeds} seeds")
    for row in rows:
        cells = []
        for part in parts:
            deviation, failed = row.deviation(part), seeds - len(row.scores[part])
            words = [f"{row.mean(part):.2f}" if row.scores[part] else "",
                     "" if deviation is None else f"± {deviation:.2f}", f"({failed} failed)" if failed else ""]
            cells.append(" ".join(filter(None, words)))
        table.add_row(*row.settings.values(), *cells)
    return table
