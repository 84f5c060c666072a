"""Pretraining runs: training, and evaluation of their checkpoints."""
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import rich.progress

from spanbert_jax.checkpoints import Checkpointer
from spanbert_jax.cluster.agreement import is_process_zero
from spanbert_jax.common.console import make_console
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.paths import user_path, utf8_path
from spanbert_jax.common.settings import from_dict, require, to_dict
from spanbert_jax.corpus import open_corpus
from spanbert_jax.masking import MaskingSettings
from spanbert_jax.model import describe_model
from spanbert_jax.pretraining.config import PretrainingConfig, as_pretraining_config
from spanbert_jax.pretraining.workload import build, find_corpus
from spanbert_jax.training.config import check_kind, load_values
from spanbert_jax.training.experiment import check_devices, use_compilation_cache
from spanbert_jax.training.host_memory import keep_freed_memory
from spanbert_jax.training.init_from import with_architecture
from spanbert_jax.training.memory import explained_in_prediction
from spanbert_jax.training.mesh import MeshSettings
from spanbert_jax.training.resuming import check_changes, describe
from spanbert_jax.training.run import RunResult, open_run

FIXED_MASKING = ("max_span_positions",)  # fields of `config.masking` that decide the shape of the model


def train(config: ml_collections.ConfigDict | PretrainingConfig, workdir: str | os.PathLike, *, force: bool = False,
          time_limit: float = 0.0, verbose: bool = False) -> RunResult:
    """Pretrains a model as a config describes, or resumes the run in `workdir`.

    The workdir gets the config, the tokenizer, checkpoints, metrics.jsonl, goodput.json, the files of other trackers
    and, if the config names raw sources, the prepared corpus. In a run of many processes each makes the same call.

    Args:
      workdir: created if needed.
      force: resume although the config changed what the run computes.
      time_limit: seconds after which to save and stop, as on SIGTERM; 0 for none.
      verbose: list the parameters of a run that is resumed, too.

    Raises:
      UserError: one line about the config field, the data or the checkpoint that is wrong.
      RunFailed: a loss or a norm is not finite, or too many updates in a row were bad; the checkpoints stay.
      SavesFailed: checkpoints could not be saved.
      Stopped: a signal or the time limit came before the first step or during compilation; nothing is lost.
    """
    config, workdir = as_pretraining_config(config), utf8_path(workdir)
    config.validate("config")
    check_kind(workdir, config)
    config = with_architecture(config, workdir)
    check_devices(config)
    with open_run(workdir, force, time_limit, verbose) as run:
        experiment = build(config, find_corpus(config, workdir))
        loop = run.train(experiment)
        return run.result(experiment, loop)


def _load_config(workdir: pathlib.Path, settings: Mapping[str, Any]) -> PretrainingConfig:
    """The config of a run, with other masks. Raises UserError if they are not allowed."""
    values = load_values(workdir)
    allowed = [f"masking.{name}" for name in to_dict(MaskingSettings()) if name not in FIXED_MASKING]
    allowed.append("evaluation.masks")
    for field, value in settings.items():
        require(field in allowed, field, value, f"of a pretraining run {', '.join(allowed)} can be set")
        section, name = field.split(".")
        values[section] = {**values.get(section, {}), name: value}
    config = from_dict(PretrainingConfig, values)
    config.masking.validate("config.masking")
    config.evaluation.validate("config.evaluation")
    return config


def evaluate(workdir: str | os.PathLike, step: int | None = None,
             settings: Mapping[str, Any] | None = None, batch_size: int | None = None) -> dict[str, Any]:
    """Evaluates a checkpoint of a run on all held-out rows of its corpus, under fixed masks.

    Args:
      step: of the checkpoint; None takes the newest valid one.
      settings: new values of masking fields, such as {"masking.scheme": "geometric"}: runs of different schemes can be
        compared under one of them. {"evaluation.masks": 8} evaluates every row under eight masks.
      batch_size: rows per device and batch, which changes no metric; None for `config.evaluation.batch_size` rows.

    Returns:
      The metrics of `evaluation.summarize`, "step", "rows", their number, "masks", those of each row, and "masking",
      the fields of the masking.

    Raises:
      UserError: there is no run, no such checkpoint, no valid one or no held-out row; a setting is not allowed.
    """
    workdir = user_path(workdir)
    config = _load_config(workdir, settings or {})
    keep_freed_memory()
    use_compilation_cache()
    # On the devices of this machine: without the optimiser state the parameters need not be split.
    rows = config.evaluation.batch_size if batch_size is None else batch_size * jax.device_count()
    require(rows >= 1, "batch_size", batch_size, "must be at least 1")
    config = config.replace(
        mesh=MeshSettings(rules=config.mesh.rules), compute=config.compute.replace(attention="auto"),
        # The batch size does not change the metrics.
        evaluation=config.evaluation.replace(max_rows=sys.maxsize, batch_size=rows + -rows % jax.device_count()))
    experiment = build(config, open_corpus(config.data.path or workdir / "data"))
    workload = experiment.workload
    if not workload.can_evaluate:
        raise UserError(f"{workload.corpus.path} has no validation rows; prepare it from more than one document")
    with (jax.set_mesh(experiment.mesh), Checkpointer(workdir, read_only=True) as checkpointer,
          explained_in_prediction(config.evaluation.batch_size // jax.device_count())):
        chosen = checkpointer.latest_valid(step)
        metadata = describe(config, workload.identity, describe_model(experiment.model))
        check_changes(chosen, checkpointer.metadata(chosen), metadata, force=True,
                      defaults=to_dict(PretrainingConfig()))
        params = checkpointer.restore_params(chosen, experiment.abstract_state.params)
        console = make_console(stderr=True, quiet=not is_process_zero())
        with rich.progress.Progress(console=console, transient=True) as bar:
            batches = config.evaluation.masks * -(-len(workload.held_out) // config.evaluation.batch_size)
            task = bar.add_task("evaluating", total=batches)
            metrics = workload.evaluate(params, lambda function, *arguments: function(*arguments),
                                        lambda: bar.advance(task))
        assert metrics is not None  # nothing stops it
        return {"step": chosen, "rows": len(workload.held_out), "masks": config.evaluation.masks,
                "masking": to_dict(config.masking), **metrics}
