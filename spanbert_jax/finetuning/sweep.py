"""Several seeds, and a grid of settings, one run after the other. Stopped or killed, the same call goes on."""
from __future__ import annotations

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
from spanbert_jax.training.stored_config import load_values

SWEEP_FILE = "sweep.json"


@dataclasses.dataclass(frozen=True)
class Row:
    """The runs of one setting of the grid.

    Attributes:
      settings: field of the config -> its value, as text.
      scores: the task's metric by part, "dev" and "test", one number a seed; none of runs that failed.
    """
    settings: dict[str, str]
    scores: dict[str, list[float]]

    def mean(self, part: str) -> float:
        """Over the seeds; -inf where every run has failed."""
        return statistics.fmean(self.scores[part]) if self.scores[part] else -math.inf

    def deviation(self, part: str) -> float | None:
        """The sample standard deviation over the seeds; None of one seed."""
        return statistics.stdev(self.scores[part]) if len(self.scores[part]) > 1 else None


def sweep(make_config: Callable[[Sequence[str]], ml_collections.ConfigDict], grid: Mapping[str, Sequence[str]],
          seeds: Sequence[int], workdir: pathlib.Path, say: Callable[[str], None] = print) -> list[Row] | None:
    """Runs every setting of a grid with every seed, each in a workdir of its own below `workdir`.

    A finished run keeps its model, scores and predictions, gives up its checkpoints, and is not done again. One whose
    loss is not finite has failed; the others go on.

    Args:
      make_config: the config with overrides such as "--config.seed=1".
      grid: fields of the config, such as "optimizer.learning_rate", each with the values to try, as text.
      seeds: of the runs; what is held back is the same for all.
      say: is told what is going on.

    Returns:
      A row for each setting, the best by the dev metric first; None if it was stopped: the same call goes on.

    Raises:
      UserError: when a setting is wrong, before anything is run.
    """
    settings = [dict(zip(grid, values)) for values in itertools.product(*grid.values())]
    runs = {(number, seed): as_finetuning_config(make_config(
                [f"--config.{field}={value}" for field, value in one.items()] + [f"--config.seed={seed}"]))
            for number, one in enumerate(settings) for seed in seeds}
    for config in runs.values():
        config.validate("config")
    results: dict[tuple[int, int], dict[str, Any]] = {}
    for count, ((number, seed), config) in enumerate(runs.items(), 1):
        name = ",".join(f"{field}={value}" for field, value in {**settings[number], "seed": seed}.items())
        say(f"Run {count} of {len(runs)}: {name}")
        found = _finished(workdir / name, config)
        try:
            if found is None and not finetune(config, workdir / name).finished:
                return None
            results[number, seed] = found or _finished(workdir / name, config)
            shutil.rmtree(workdir / name / FOLDER, ignore_errors=True)
        except SavesFailed:
            raise
        except RunFailed as error:  # by what the setting asks for; others may do better
            say(f"failed: {error}")
    metric = task_of(next(iter(runs.values()))).metric
    parts = [part for part in ("dev", "test") if any(part in result for result in results.values())]
    rows = [Row(one, {part: [results[number, seed][part][metric] for seed in seeds if (number, seed) in results]
                      for part in parts}) for number, one in enumerate(settings)]
    if "dev" in parts:
        rows.sort(key=lambda row: -row.mean("dev"))
    summary = {"metric": metric, "seeds": list(seeds), "rows": [dataclasses.asdict(row) for row in rows]}
    write_text(workdir / SWEEP_FILE, json.dumps(summary, indent=2) + "\n")
    return rows


def _finished(workdir: pathlib.Path, config: FinetuningConfig) -> dict[str, Any] | None:
    """The results of a run of a config that has finished.

    Raises:
      UserError: when they are those of another config.
    """
    file = workdir / RESULTS_FILE
    if not file.is_file():
        return None
    # The stored architecture is that of config.init_from, not what was asked for.
    stored, asked = to_dict(from_values(load_values(workdir)).replace(model=config.model)), to_dict(config)
    if stored != asked:
        different = [name for name in asked if stored[name] != asked[name]]
        raise UserError(f"{workdir}: finished with another config (sections that differ: {', '.join(different)}); give "
                        "another workdir")
    return json.loads(file.read_text(encoding="utf-8"))
