"""A run: what its config describes, from its workdir's newest sound checkpoint to the end."""
from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax

from spanbert_jax.checkpoints import Checkpointer
from spanbert_jax.cluster.agreement import is_process_zero
from spanbert_jax.cluster.lock import lock_workdir
from spanbert_jax.cluster.stopping import StopRequest
from spanbert_jax.common.console import make_console
from spanbert_jax.common.errors import UserError
from spanbert_jax.training import display
from spanbert_jax.training.experiment import Experiment, use_compilation_cache
from spanbert_jax.training.goodput import Account, read_record, write_record
from spanbert_jax.training.host_memory import keep_freed_memory
from spanbert_jax.training.loop import Loop
from spanbert_jax.training.profiling import Profiler
from spanbert_jax.training.resuming import check_changes, describe, require_same_everywhere
from spanbert_jax.training.state import TrainState, create_state, from_stored, state_from_params, to_stored
from spanbert_jax.training.stored_config import save_config
from spanbert_jax.training.tracking import METRICS_FILE, MetricsWriter

OLD_METRICS = "metrics.old.jsonl"


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What came of a run.

    Attributes:
      workdir: where it lies.
      step: updates done.
      finished: whether that is all of them; if not, the run was stopped and the same call goes on.
      parameters: of the network.
      seconds: of this call.
      evaluation: figures of the last evaluation, as what is learned gives them; None without held-out rows.
    """
    workdir: pathlib.Path
    step: int
    finished: bool
    parameters: int
    seconds: float
    evaluation: dict[str, Any] | None


def run(make: Callable[[], Experiment], workdir: pathlib.Path, force: bool, time_limit: float,
        conclude: Callable[[Experiment, Loop], None] = lambda experiment, loop: None) -> RunResult:
    """Runs an experiment, or goes on with it; `train` says the rest.

    Args:
      make: the experiment, from data that it may have to prepare first.
      conclude: is called when all steps are done, before the workdir is let go.
    """
    began, account = time.monotonic(), Account()
    keep_freed_memory()
    use_compilation_cache()
    with StopRequest(time_limit) as stop, lock_workdir(workdir) if is_process_zero() else contextlib.nullcontext():
        experiment = make()
        with jax.set_mesh(experiment.mesh):
            loop = _run(experiment, workdir, stop, force, account)
            if loop.finished:
                conclude(experiment, loop)
    seconds = time.monotonic() - began
    return RunResult(workdir, loop.step, loop.finished, experiment.parameters, seconds, loop.evaluation)


def _run(experiment: Experiment, workdir: pathlib.Path, stop: StopRequest, force: bool, account: Account) -> Loop:
    """Goes on from the newest sound checkpoint, or begins, and trains. Returns the loop at its end."""
    config, checkpoint = experiment.config, experiment.config.checkpoint
    console = make_console(stderr=True, quiet=not is_process_zero())
    metadata = describe(config, experiment.workload.identity, experiment.model.config)
    require_same_everywhere(metadata, force)

    with Checkpointer(workdir, keep=checkpoint.keep, keep_every=experiment.steps("checkpoint", "keep_every"),
                      tries=checkpoint.tries, log=console.print) as checkpointer:
        checkpointer.check_space(experiment.abstract_state)
        display.introduce(console, experiment)

        changes: list[str] = []

        def check(step: int, before: dict[str, Any]) -> None:
            changes[:] = check_changes(step, before, metadata, force, experiment.defaults)

        def begin() -> tuple[int, TrainState]:
            with jax.set_mesh(experiment.mesh):  # which is the thread's own
                if resumed := checkpointer.resume(to_stored(experiment.abstract_state), check):
                    return resumed[0], from_stored(resumed[1])
                return 0, _fresh(experiment)

        # In a thread of its own: what a signal raises inside Orbax would look like a checkpoint that cannot be read.
        step, state = stop.interruptible(begin)
        if step:
            console.print(f"Going on from the checkpoint of step {step:,} in {workdir}.")
        elif (workdir / METRICS_FILE).exists():
            console.print(f"No checkpoint in {workdir}: beginning at step 0; older metrics are in {OLD_METRICS}.")
        for change in changes:
            console.print(f"Changed since then: {change}")
        # Not before the checkpoint has been found to fit: a wrong config leaves the run's own in place.
        if is_process_zero():
            _furnish(workdir, experiment, new=not step)
        total = experiment.size.total_steps
        with (MetricsWriter(workdir, step, say=console.print) as writer,
              display.TrainingProgress(console, total, step) as progress, stop.deferred()):
            profiler = Profiler(config.profile, workdir, range(step + 1, total + 1), account, progress.say)
            loop = Loop(experiment, state, step, checkpointer, metadata, writer, progress, stop, account, profiler)
            del state  # the loop donates it
            if loop.finished:  # it only says its evaluation again
                loop.run()
            else:
                if is_process_zero():
                    account.resume(read_record(workdir, progress.say), step, functools.partial(write_record, workdir))
                _train_and_account(loop, account, writer, progress)
    return loop


def _train_and_account(loop: Loop, account: Account, writer: MetricsWriter, progress: display.TrainingProgress) -> None:
    """Trains, and says where the time went, however it ends."""
    try:
        loop.run()
        if loop.finished:
            account.finish()
    finally:
        figures = account.figures()
        writer.write(loop.step, "goodput", figures)
        progress.say(display.goodput_words(figures))


def _furnish(workdir: pathlib.Path, experiment: Experiment, new: bool) -> None:
    """Puts the config and the tokenizer into the workdir, and out of a new run's way what an older one has written."""
    try:
        if new and (workdir / METRICS_FILE).exists():
            (workdir / METRICS_FILE).replace(workdir / OLD_METRICS)
        experiment.workload.furnish(workdir)
        save_config(workdir, experiment.config)
    except OSError as error:
        raise UserError(f"{error.filename or workdir}: cannot be written ({error.strerror}); mend that, or give "
                        "another workdir") from None


def _fresh(experiment: Experiment) -> TrainState:
    if (params := experiment.workload.initial_params()) is not None:
        return state_from_params(params, experiment.optimizer, experiment.abstract_state)
    return create_state(experiment.model, experiment.optimizer, experiment.abstract_state, experiment.config.seed)
