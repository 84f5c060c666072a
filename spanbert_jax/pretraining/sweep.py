"""Sweeps over pretraining runs, which are all evaluated under the same masking."""
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

from spanbert_jax.common.files import write_text
from spanbert_jax.common.settings import from_dict, to_dict
from spanbert_jax.pretraining.config import PretrainingConfig, as_pretraining_config
from spanbert_jax.pretraining.evaluation import describe_masked_rows
from spanbert_jax.pretraining.run import FIXED_MASKING, evaluate, train
from spanbert_jax.pretraining.workload import find_corpus
from spanbert_jax.training.config import load_values
from spanbert_jax.training.sweep import RESULTS_FILE, MakeConfig, Row, Sweep

METRIC = "masked_loss"


def sweep(make_config: MakeConfig, grid: Mapping[str, Sequence[str]], seeds: Sequence[int], folder: pathlib.Path,
          log: Callable[[str], None] = print) -> list[Row] | None:
    """Pretrains every point of a grid with every seed below `folder`, as `training.sweep.Sweep` does.

    All runs are evaluated on all held-out rows under the masking of the config without the grid, so that masking
    schemes can be compared. A corpus of raw text is prepared once, unless the grid changes it, so that all runs hold
    out the same documents.
    """
    base = as_pretraining_config(make_config([]))
    base.validate("config")
    masking = {f"masking.{name}": value for name, value in to_dict(base.masking).items() if name not in FIXED_MASKING}
    own_corpus = any(field.startswith("data.") for field in grid)
    shared = [] if own_corpus else [f"--config.data.path={base.data.path or folder / 'data'}"]

    def run(config: PretrainingConfig, workdir: pathlib.Path) -> bool:
        if not own_corpus:
            find_corpus(base, folder)
        if not train(config, workdir).finished:
            return False
        metrics = evaluate(workdir, settings=masking)
        write_text(workdir / RESULTS_FILE, json.dumps({"step": metrics.pop("step"), "dev": metrics}, indent=2) + "\n")
        return True

    of_kind = Sweep(as_pretraining_config, lambda workdir: from_dict(PretrainingConfig, load_values(workdir)), run,
                    lambda config: METRIC, lower_is_better=True,
                    # Runs of earlier versions have not stored their rows.
                    evaluated=lambda results: describe_masked_rows(results["dev"]) if "rows" in results["dev"] else "")
    return of_kind(lambda overrides: make_config([*shared, *overrides]), grid, seeds, folder, log)
