"""Pretraining runs: training, and evaluation of a run from its workdir."""
from __future__ import annotations

import os
import pathlib
import sys
from typing import Any

import jax
import ml_collections
import rich.progress

from spanbert_jax.checkpoints import Checkpointer
from spanbert_jax.cluster.agreement import is_process_zero
from spanbert_jax.common.console import make_console
from spanbert_jax.common.errors import UserError
from spanbert_jax.corpus import open_corpus
from spanbert_jax.pretraining.config import default_config, validate
from spanbert_jax.pretraining.workload import build, find_corpus
from spanbert_jax.training.experiment import check_devices, use_compilation_cache
from spanbert_jax.training.host_memory import keep_freed_memory
from spanbert_jax.training.init_from import with_network
from spanbert_jax.training.resuming import check_changes, describe
from spanbert_jax.training.run import RunResult, run
from spanbert_jax.training.stored_config import load_config


def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike, *, force: bool = False,
          time_limit: float = 0.0) -> RunResult:
    """Pretrains what a config describes, or goes on where a run in `workdir` stopped.

    The workdir gets the config, the tokenizer, checkpoints, metrics.jsonl, goodput.json, TensorBoard files and, where
    the config names raw sources, the prepared corpus. In a run of many processes every one calls this with the same
    arguments.

    Args:
      force: go on from a checkpoint although changes since then make it another run.
      time_limit: seconds after which to save and stop, as on SIGTERM; 0 for none.

    Raises:
      UserError: one line about the field of the config, the data or the checkpoint that does not go.
      RunFailed: when a loss or a norm is not finite, or too many bad updates come in a row; the checkpoints stay.
      SavesFailed: when checkpoints could not be saved.
      Stopped: on a signal or the time limit outside the steps, as during preparation or compilation; nothing is lost.
    """
    validate(config)
    workdir = pathlib.Path(workdir)
    config = with_network(config, workdir)
    check_devices(config)
    return run(lambda: build(config, find_corpus(config, workdir)), workdir, force, time_limit)


def evaluate(workdir: str | os.PathLike, step: int | None = None) -> dict[str, Any]:
    """Evaluates a checkpoint of a run on all held-out rows of its corpus, under the fixed mask.

    Args:
      workdir: of the run.
      step: of the checkpoint; None takes the newest sound one.

    Returns:
      The figures of `evaluation.summarize`, and "step".

    Raises:
      UserError: when there is no run, no such checkpoint, no sound one or no held-out row.
    """
    workdir = pathlib.Path(workdir)
    config = load_config(workdir, default_config())
    keep_freed_memory()
    use_compilation_cache()
    # On the devices there are, whatever the run had: without an optimiser's state nothing needs to be split.
    config.mesh.update(dict(data=-1, fsdp=1, tensor=1, zero1=False))
    config.model.attention = "auto"
    config.evaluation.max_rows = sys.maxsize
    config.evaluation.batch_size += -config.evaluation.batch_size % jax.device_count()  # any size gives the same
    experiment = build(config, open_corpus(config.data.path or workdir / "data"))
    learning = experiment.workload
    if not learning.can_evaluate:
        raise UserError(f"{learning.corpus.path} has no validation rows; prepare it from more than one document")
    with jax.set_mesh(experiment.mesh), Checkpointer(workdir, read_only=True) as checkpointer:
        chosen = checkpointer.latest_valid(step)
        metadata = describe(config, learning.identity, experiment.model.config)
        check_changes(chosen, checkpointer.metadata(chosen), metadata, force=True, defaults=default_config().to_dict())
        params = checkpointer.restore_params(chosen, experiment.abstract_state.params)
        with rich.progress.Progress(console=make_console(stderr=True, quiet=not is_process_zero()), transient=True) as bar:
            task = bar.add_task("evaluating", total=-(-len(learning.held_out) // config.evaluation.batch_size))
            figures = learning.evaluate(params, lambda function, *arguments: function(*arguments),
                                        lambda: bar.advance(task))
        return {"step": chosen, **figures}
