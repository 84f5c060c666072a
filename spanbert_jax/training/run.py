"""One attempt of a run: from the newest valid checkpoint of its workdir to the end or to a stop."""
import contextlib
import dataclasses
import functools
import itertools
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax

from spanbert_jax.checkpoints import FOLDER, Checkpointer
from spanbert_jax.cluster.agreement import is_process_zero
from spanbert_jax.cluster.lock import lock_workdir
from spanbert_jax.cluster.stopping import StopRequest
from spanbert_jax.common.console import make_console
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import describe_failure
from spanbert_jax.common.settings import require, to_dict
from spanbert_jax.common.streams import protected_streams
from spanbert_jax.model import describe_model
from spanbert_jax.training import display
from spanbert_jax.training.config import CONFIG_FILE, save_config, started_values
from spanbert_jax.training.experiment import Experiment, use_compilation_cache
from spanbert_jax.training.goodput import GOODPUT_FILE, Goodput, read_record, write_record
from spanbert_jax.training.host_memory import keep_freed_memory
from spanbert_jax.training.loop import TrainingLoop
from spanbert_jax.training.memory import explained_in_training
from spanbert_jax.training.profiling import Profiler
from spanbert_jax.training.resuming import check_changes, describe, require_same_everywhere
from spanbert_jax.training.state import TrainState, create_state, from_stored, state_from_params, to_stored
from spanbert_jax.training.sweep import RESULTS_FILE
from spanbert_jax.training.trackers import METRICS_FILE, MetricsWriter
from spanbert_jax.training.updates import Services

# What runs write into their workdirs over what is there.
_WRITTEN = (CONFIG_FILE, RESULTS_FILE, GOODPUT_FILE, "tokenizer.json", "task.json", "model", "predictions")


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The result of an attempt."""
    workdir: pathlib.Path
    step: int  # updates done
    finished: bool  # whether all updates are done; if not, the attempt was stopped and the same call resumes it
    parameters: int  # of the model
    seconds: float  # duration of this attempt
    evaluation: dict[str, Any] | None  # metrics of the last evaluation; None without held-out rows


@contextlib.contextmanager
def open_run(workdir: pathlib.Path, force: bool, time_limit: float, verbose: bool) -> Iterator["Run"]:
    """Locks a workdir, listens for stop requests, and survives lost streams, until the context is left.

    With `force` a run resumes although the config changed what it computes. After `time_limit` seconds it saves and
    stops; 0 is no limit; raises UserError for less. With `verbose` a resumed run shows its parameters again.
    """
    require(time_limit >= 0, "time_limit", time_limit, "must be at least 0 seconds")
    began, goodput = time.monotonic(), Goodput()
    keep_freed_memory()
    use_compilation_cache()
    with (protected_streams(), StopRequest(time_limit) as stop,
          lock_workdir(workdir) if is_process_zero() else contextlib.nullcontext()):
        if is_process_zero():
            _require_own(workdir)
        yield Run(workdir, force, verbose, stop, goodput, began)


@dataclasses.dataclass(frozen=True)
class Run:
    """An open run; made by `open_run`."""
    workdir: pathlib.Path
    force: bool
    verbose: bool
    stop: StopRequest
    goodput: Goodput
    began: float

    def train(self, experiment: Experiment) -> TrainingLoop:
        """Trains an experiment from its newest valid checkpoint, or from the start. Returns the loop at its end.

        Raises:
          as `TrainingLoop.run`.
          UserError: the checkpoints do not fit the config, the step does not fit in memory, or the workdir cannot be
            written.
        """
        config, checkpoint, console = experiment.config, experiment.config.checkpoint, _console()
        metadata = describe(config, experiment.workload.identity, describe_model(experiment.model))
        require_same_everywhere(metadata, self.force)
        with (jax.set_mesh(experiment.mesh), explained_in_training(config),
              Checkpointer(self.workdir, keep=checkpoint.keep, keep_every=experiment.steps("checkpoint", "keep_every"),
                           tries=checkpoint.tries, log=console.print) as checkpointer):
            checkpointer.check_space(experiment.abstract_state)
            step, state = self._load_or_create_state(experiment, checkpointer, metadata)
            # The first attempt of a run shows its parameters.
            display.print_summary(console, experiment, self.verbose or not (self.workdir / CONFIG_FILE).exists())
            # Only after the checkpoint was found to fit: a wrong config does not replace the stored one.
            if is_process_zero():
                _init_workdir(self.workdir, experiment, new=not step)
            total = experiment.total_steps
            with (MetricsWriter(self.workdir, step, config.trackers, log=console.print) as metrics,
                  display.TrainingProgress(console, total, step) as progress, self.stop.deferred()):
                profiler = Profiler(config.profile, self.workdir, range(step + 1, total + 1), self.goodput,
                                    progress.log)
                services = Services(checkpointer, metrics, progress, self.stop, self.goodput, profiler)
                loop = TrainingLoop(experiment, state, step, services, metadata)
                del state  # the loop donates it
                if loop.finished:  # evaluates again, and writes nothing
                    loop.run()
                else:
                    self._train_and_report_goodput(loop, services)
        return loop

    def result(self, experiment: Experiment, loop: TrainingLoop) -> RunResult:
        """The result after `train`."""
        return RunResult(self.workdir, loop.step, loop.finished, experiment.parameters, time.monotonic() - self.began,
                         loop.evaluation)

    def _load_or_create_state(self, experiment: Experiment, checkpointer: Checkpointer,
                              metadata: dict[str, Any]) -> tuple[int, TrainState]:
        """The newest valid checkpoint, or step 0 and a new state; prints which."""
        console, changes = _console(), list[str]()

        def check(step: int, stored: dict[str, Any]) -> None:
            changes[:] = check_changes(step, stored, metadata, self.force, to_dict(type(experiment.config)()))

        def load() -> tuple[int, TrainState]:
            with jax.set_mesh(experiment.mesh):  # the setting belongs to the thread
                if resumed := checkpointer.resume(to_stored(experiment.abstract_state), check):
                    return resumed[0], from_stored(resumed[1])
                if (params := experiment.workload.initial_params()) is not None:
                    return 0, state_from_params(params, experiment.optimizer, experiment.abstract_state)
                return 0, create_state(experiment.model, experiment.optimizer, experiment.abstract_state,
                                       experiment.config.seed)

        # In another thread: an exception raised by a signal inside Orbax would look like an unreadable checkpoint.
        step, state = self.stop.interruptible(load)
        if step:
            console.print(f"Resuming from the checkpoint of step {step:,} in {self.workdir}.")
        elif (self.workdir / METRICS_FILE).exists():
            console.print(f"No checkpoint in {self.workdir}: starting at step 0; older metrics are in "
                          f"{_old_metrics(self.workdir).name}.")
        for change in changes:
            console.print(f"Changed since then: {change}")
        return step, state

    def _train_and_report_goodput(self, loop: TrainingLoop, services: Services) -> None:
        """Runs the loop, and reports where the time went however it ends."""
        if is_process_zero():
            record = read_record(self.workdir, services.progress.log)
            self.goodput.resume(record, loop.step, functools.partial(write_record, self.workdir))
        try:
            loop.run()
            if loop.finished:
                self.goodput.finish()
        finally:
            goodput_metrics = self.goodput.metrics()
            services.metrics.write(loop.step, "goodput", goodput_metrics)
            services.progress.log(display.format_goodput(goodput_metrics))


def _require_own(workdir: pathlib.Path) -> None:
    """Raises UserError if a workdir without a run holds files that a run would overwrite, such as those of a model."""
    if started_values(workdir) or (workdir / FOLDER).is_dir():
        return
    if taken := [name for name in _WRITTEN if os.path.lexists(workdir / name)]:
        raise UserError(f"workdir {workdir}: holds no run, but {taken[0]}, which a run would overwrite; give another "
                        "workdir, or move it away")


def _old_metrics(workdir: pathlib.Path) -> pathlib.Path:
    """The name that the metrics of an older run get; no file has it."""
    names = itertools.chain(["metrics.old.jsonl"], (f"metrics.old-{number}.jsonl" for number in itertools.count(2)))
    return next(workdir / name for name in names if not os.path.lexists(workdir / name))


def _console() -> Any:
    return make_console(stderr=True, quiet=not is_process_zero())


def _init_workdir(workdir: pathlib.Path, experiment: Experiment, new: bool) -> None:
    """Writes config and artifacts; a new run renames the metrics of an older one."""
    try:
        if new and (workdir / METRICS_FILE).exists():
            (workdir / METRICS_FILE).rename(_old_metrics(workdir))
        experiment.workload.write_artifacts(workdir)
        save_config(workdir, experiment.config)
    except OSError as error:
        raise UserError(f"{error.filename or workdir}: cannot be written ({describe_failure(error, workdir)}); fix "
                        "that, or give another workdir") from None
