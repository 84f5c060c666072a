"""Train with several seeds and settings, and compare them. After a stop, the same command continues the sweep.

  spanbert-jax sweep --config configs/sentiment.py:small=true --seeds 3 --workdir runs/sentiment
  spanbert-jax sweep --config configs/squad.py --workdir runs/grid --seeds 2 \\
      --config.task.train=train-v1.1.json --config.task.dev=dev-v1.1.json \\
      --grid optimizer.learning_rate=1e-5,2e-5,3e-5 --grid train.batch_size=16,32
  spanbert-jax sweep --config configs/base.py --config.data.path=corpora/wiki --workdir runs/schemes \\
      --grid masking.scheme=geometric,whole_word

Every combination of values runs with every seed, one run after the other, each in its own workdir. All runs hold out
the same examples. The table shows mean and standard deviation over the seeds, the best dev metric first. Pretraining
runs are all evaluated on all held-out rows, under the masking of the config without the grid.
"""
import argparse
import importlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import ml_collections
import rich.table

from spanbert_jax.cluster.exit_codes import DONE, STOPPED
from spanbert_jax.commands.config_files import load_config, with_overrides
from spanbert_jax.commands.train import parse as parse  # `main` calls it
from spanbert_jax.common.console import make_console, make_table
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_plural, is_percent
from spanbert_jax.common.json_files import read_json
from spanbert_jax.common.paths import user_path
from spanbert_jax.common.settings import CONFIG_ADVICE
from spanbert_jax.training.renames import new_name

if TYPE_CHECKING:
    from spanbert_jax.training.sweep import Row


def sweep(config: Annotated[ml_collections.ConfigDict, CONFIG_ADVICE], workdir: str | os.PathLike, *, seeds: int = 1,
          grid: Mapping[str, Sequence[Any]] | None = None) -> "list[Row] | None":
    """Trains with several seeds and every combination of settings, one run after the other.

    Args:
      config: of a task or of pretraining.
      workdir: parent directory of the runs' workdirs.
      seeds: number of seeds of each combination, counted from config.seed.
      grid: config fields, such as "optimizer.learning_rate", each with the values to try.

    Returns:
      One row per combination, the best dev metric first; None if the sweep was stopped.

    Raises:
      UserError: a setting is wrong; checked before the first run starts.
    """
    grid = grid or {}
    module = importlib.import_module(f"spanbert_jax.{'finetuning' if 'task' in config else 'pretraining'}.sweep")
    fields = list(map(new_name, grid))
    if len(set(fields)) < len(fields) or "seed" in fields:
        raise UserError(f"grid: fields {', '.join(fields)}: give each field once, and seeds on their own")
    if empty := [field for field, values in grid.items() if not values]:
        raise UserError(f"grid: {empty[0]} has no values; give one or several")
    if seeds < 1:
        raise UserError(f"seeds={seeds}: must be at least 1")
    return module.sweep(lambda overrides: with_overrides(config, overrides),
                        {field: list(map(str, values)) for field, values in grid.items()},
                        range(config.seed, config.seed + seeds), user_path(workdir))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this command."""
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]", help="config file")
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
    from spanbert_jax.training.sweep import SWEEP_FILE
    config = load_config(args.config, args.overrides)
    if repeated := [field for number, (field, _) in enumerate(args.grid) if field in dict(args.grid[:number])]:
        raise UserError(f"--grid {repeated[0]}: give each field once")
    rows = sweep(config, args.workdir, seeds=args.seeds, grid=dict(args.grid))
    if rows is None:
        print("Stopped and saved. Run the same command again to continue.")
        return STOPPED
    summary = read_json(user_path(args.workdir) / SWEEP_FILE, dict[str, Any])
    make_console().print(table_of(rows, args.seeds, summary["metric"], summary["evaluated"]))
    return DONE


def table_of(rows: "Sequence[Row]", seeds: int, metric: str, evaluated: str = "") -> rich.table.Table:
    """Settings with mean and deviation of each part; the title says on what the dev metric was `evaluated`."""
    parts, digits = list(rows[0].scores), 3 if metric.endswith("loss") else 2
    title = f"{metric}{' in percent' * is_percent(metric)}, {format_plural(seeds, 'seed')}"
    table = make_table(*rows[0].settings, *parts, title=f"{title}; {evaluated}" if evaluated else title)
    for row in rows:
        cells = []
        for part in parts:
            deviation, failed = row.deviation(part), seeds - len(row.scores[part])
            words = [f"{row.mean(part):.{digits}f}" if row.scores[part] else "",
                     "" if deviation is None else f"± {deviation:.{digits}f}", f"({failed} failed)" if failed else ""]
            cells.append(" ".join(filter(None, words)))
        table.add_row(*row.settings.values(), *cells)
    return table
