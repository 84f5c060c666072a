"""Fine-tuning runs with several seeds and a grid of settings, one after the other."""
import dataclasses
import itertools
import json
import math
import pathlib
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from spanbert_jax.checkpoints import FOLDER
from spanbert_jax.common.errors import RunFailed, SavesFailed, UserError
from spanbert_jax.common.files import write_text
from spanbert_jax.common.settings import to_dict
from spanbert_jax.finetuning.config import FinetuningConfig, as_finetuning_config, from_values, task_of
from spanbert_jax.finetuning.run import RESULTS_FILE, finetune
from spanbert_jax.training.config import load_values

SWEEP_FILE = "sweep.json"


@dataclasses.dataclass(frozen=True)
class Row:
    """The runs of one point of the grid."""
    settings: dict[str, str]  # config field -> its value, as text
    scores: dict[str, list[float]]  # the task's metric by part, "dev" and "test", one for each seed that did not fail

    def mean(self, part: str) -> float:
        """Mean over the seeds; -inf if all runs failed."""
        return statistics.fmean(self.scores[part]) if self.scores[part] else -math.inf

    def deviation(self, part: str) -> float | None:
        """Sample standard deviation over the seeds; None for fewer than two."""
        return statistics.stdev(self.scores[part]) if len(self.scores[part]) > 1 else None


def sweep(make_config: Callable[[Sequence[str]], ml_collections.ConfigDict], grid: Mapping[str, Sequence[str]],
          seeds: Sequence[int], workdir: pathlib.Path, log: Callable[[str], None] = print) -> list[Row] | None:
    """Runs every point of a grid with every seed, each in its own workdir below `workdir`.

    A finished run keeps its model, scores and predictions, but not its checkpoints, and does not run again. A run whose
    loss is not finite has failed; the other runs continue. After a stop, the same call continues the sweep.

    Args:
      make_config: returns the config with overrides such as "--config.seed=1".
      grid: config fields, such as "optimizer.learning_rate", each with the values to try, as text.
      seeds: seeds of the runs; all of them hold out the same examples.
      log: called with a line about each run.

    Returns:
      One row per point, the best dev metric first; None if the sweep was stopped.

    Raises:
      UserError: a setting is wrong; checked before the first run starts.
    """
    points = [dict(zip(grid, values)) for values in itertools.product(*grid.values())]
    runs = {(number, seed): as_finetuning_config(make_config(
                [f"--config.{field}={value}" for field, value in point.items()] + [f"--config.seed={seed}"]))
            for number, point in enumerate(points) for seed in seeds}
    for config in runs.values():
        config.validate("config")
    results: dict[tuple[int, int], dict[str, Any]] = {}
    for count, ((number, seed), config) in enumerate(runs.items(), 1):
        name = ",".join(f"{field}={value}" for field, value in {**points[number], "seed": seed}.items())
        log(f"Run {count} of {len(runs)}: {name}")
        try:
            if (found := _run(config, workdir / name)) is None:
                return None
            results[number, seed] = found
        except SavesFailed:
            raise
        except RunFailed as error:  # because of its settings; other runs may succeed
            log(f"failed: {error}")
    metric = task_of(next(iter(runs.values()))).metric
    parts = [part for part in ("dev", "test") if any(part in result for result in results.values())]
    rows = [Row(point, {part: [results[number, seed][part][metric] for seed in seeds if (number, seed) in results]
                        for part in parts}) for number, point in enumerate(points)]
    if "dev" in parts:
        rows.sort(key=lambda row: -row.mean("dev"))
    summary = {"metric": metric, "seeds": list(seeds), "rows": [dataclasses.asdict(row) for row in rows]}
    write_text(workdir / SWEEP_FILE, json.dumps(summary, indent=2) + "\n")
    return rows


def _run(config: FinetuningConfig, workdir: pathlib.Path) -> dict[str, Any] | None:
    """Results of a run, which is done unless it has finished before; None if it was stopped."""
    found = _results(workdir, config)
    if found is None and not finetune(config, workdir).finished:
        return None
    shutil.rmtree(workdir / FOLDER, ignore_errors=True)
    return found or _results(workdir, config)


def _results(workdir: pathlib.Path, config: FinetuningConfig) -> dict[str, Any] | None:
    """The results of a finished run; None before. Raises UserError if it finished with another config."""
    file = workdir / RESULTS_FILE
    if not file.is_file():
        return None
    # The stored architecture is that of config.init_from, not the one in `config`.
    stored, asked = to_dict(from_values(load_values(workdir)).replace(model=config.model)), to_dict(config)
    if stored != asked:
        different = [name for name in asked if stored[name] != asked[name]]
        raise UserError(f"{workdir}: finished with another config (sections that differ: {', '.join(different)}); give "
                        "another workdir")
    return json.loads(file.read_text(encoding="utf-8"))
