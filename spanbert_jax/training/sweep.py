"""Runs with several seeds and a grid of settings, one after the other."""
import dataclasses
import hashlib
import itertools
import json
import math
import os
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import ml_collections

from spanbert_jax.common.errors import RunFailed, SavesFailed, UserError
from spanbert_jax.common.files import write_text
from spanbert_jax.common.json_files import read_json
from spanbert_jax.common.settings import to_dict

SWEEP_FILE, RESULTS_FILE = "sweep.json", "results.json"
_LONGEST_NAME = 240  # bytes; file systems allow 255, and unfinished work has a longer name


class Results(TypedDict):
    """What a finished run writes to results.json: metrics of each part by name."""
    step: int
    dev: NotRequired[dict[str, Any]]
    test: NotRequired[dict[str, Any]]

MakeConfig = Callable[[Sequence[str]], ml_collections.ConfigDict]  # from overrides such as "--config.seed=1"


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


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a sweep needs to know of a kind of run."""
    as_config: Callable[[ml_collections.ConfigDict], Any]  # the typed config
    stored_config: Callable[[pathlib.Path], Any]  # the config of the run in a workdir
    run: Callable[[Any, pathlib.Path], bool]  # trains, and stores results by part; false if the run was stopped
    metric: Callable[[Any], str]  # by which the runs of a config are compared
    lower_is_better: bool = False
    # From the results of a run, what its dev metric was computed on.
    evaluated: Callable[[Mapping[str, Any]], str] = lambda results: ""
    tidy: Callable[[pathlib.Path], None] = lambda workdir: None  # removes what is not kept of a finished run

    def __call__(self, make_config: MakeConfig, grid: Mapping[str, Sequence[str]], seeds: Sequence[int],
                 workdir: pathlib.Path, log: Callable[[str], None] = print) -> list[Row] | None:
        """Runs every point of a grid with every seed, each in its own workdir below `workdir`.

        A finished run does not run again. A run whose loss is not finite has failed; the other runs continue. After a
        stop, the same call continues the sweep.

        Args:
          make_config: returns the config with overrides.
          grid: config fields, such as "optimizer.learning_rate", each with the values to try, as text.
          seeds: seeds of the runs; all of them hold out the same examples.
          log: called with a line about each run.

        Returns:
          One row per point, the best dev metric first; None if the sweep was stopped.

        Raises:
          UserError: a setting is wrong; checked before the first run starts.
        """
        points = [dict(zip(grid, values)) for values in itertools.product(*grid.values())]
        runs = {(number, seed): self.as_config(make_config(
                    [f"--config.{field}={value}" for field, value in point.items()] + [f"--config.seed={seed}"]))
                for number, point in enumerate(points) for seed in seeds}
        for config in runs.values():
            config.validate("config")
        results: dict[tuple[int, int], dict[str, Any]] = {}
        for count, ((number, seed), config) in enumerate(runs.items(), 1):
            name = ",".join(f"{field}={value}" for field, value in {**points[number], "seed": seed}.items())
            log(f"Run {count} of {len(runs)}: {name}")
            try:
                if (found := self._finish(config, _workdir_of(workdir, name))) is None:
                    return None
                results[number, seed] = found
            except SavesFailed:
                raise
            except RunFailed as error:  # because of its settings; other runs may succeed
                log(f"failed: {error}")
        metric = self.metric(next(iter(runs.values())))
        rows = self._rows(points, seeds, results, metric)
        evaluated = " or ".join(filter(None, dict.fromkeys(map(self.evaluated, results.values()))))
        summary = {"metric": metric, "evaluated": evaluated, "seeds": list(seeds),
                   "rows": [dataclasses.asdict(row) for row in rows]}
        write_text(workdir / SWEEP_FILE, json.dumps(summary, indent=2) + "\n")
        return rows

    def _rows(self, points: Sequence[dict[str, str]], seeds: Sequence[int],
              results: Mapping[tuple[int, int], Mapping[str, Any]], metric: str) -> list[Row]:
        """One row per point, the best dev metric first, from results by number of the point and seed."""
        parts = [part for part in ("dev", "test") if any(part in result for result in results.values())]
        rows = [Row(point, {part: [results[number, seed][part][metric] for seed in seeds if (number, seed) in results]
                            for part in parts}) for number, point in enumerate(points)]
        if "dev" in parts:
            sign = 1 if self.lower_is_better else -1
            rows.sort(key=lambda row: (not row.scores["dev"], sign * row.mean("dev")))
        return rows

    def _finish(self, config: Any, workdir: pathlib.Path) -> dict[str, Any] | None:
        """Results of a run, which is done unless it has finished before; None if it was stopped."""
        found = self._results(workdir, config)
        if found is None and not self.run(config, workdir):
            return None
        self.tidy(workdir)
        return found or self._results(workdir, config)

    def _results(self, workdir: pathlib.Path, config: Any) -> dict[str, Any] | None:
        """The results of a finished run; None before. Raises UserError if it finished with another config."""
        file = workdir / RESULTS_FILE
        if not file.is_file():
            return None
        # The stored architecture is that of config.init_from, not the one in `config`.
        stored, asked = to_dict(self.stored_config(workdir).replace(model=config.model)), to_dict(config)
        if stored != asked:
            different = [name for name in asked if stored[name] != asked[name]]
            raise UserError(f"{workdir}: finished with another config (sections that differ: {', '.join(different)}); "
                            "give another workdir")
        return {**read_json(file, Results, "remove its folder, and run the same command again")}


def _workdir_of(parent: pathlib.Path, name: str) -> pathlib.Path:
    """The workdir of a run below `parent`: one folder, whose name has the characters of paths escaped.

    Raises UserError if it is a link.
    """
    earlier = os.path.join(parent, name)  # earlier versions took a value with a slash for folders
    if "/" in name and os.path.isdir(earlier) and os.path.realpath(earlier).startswith(f"{os.path.realpath(parent)}/"):
        return pathlib.Path(earlier)
    escaped = name.translate({ord(character): f"%{ord(character):02X}" for character in "%/\0"})
    if len(os.fsencode(escaped)) > _LONGEST_NAME:
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        escaped = f"{os.fsencode(escaped)[:_LONGEST_NAME - 20].decode(errors='ignore')}...{digest}"
    if (workdir := parent / escaped).is_symlink():
        raise UserError(f"{workdir}: is a link, and a sweep writes only into its own workdir; move it away")
    return workdir
