"""The loop: evaluate and save what is due, then draw a batch, step, log."""
from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from spanbert_jax.checkpoints import Checkpointer
from spanbert_jax.cluster.agreement import any_process, broadcast_from_zero
from spanbert_jax.cluster.stopping import Stopped, StopRequest
from spanbert_jax.common.errors import RunFailed, UserError
from spanbert_jax.corpus import RowOrder
from spanbert_jax.training import display
from spanbert_jax.training.batches import device_batches
from spanbert_jax.training.experiment import Experiment
from spanbert_jax.training.goodput import Account
from spanbert_jax.training.mesh import stop_flags
from spanbert_jax.training.profiling import Profiler
from spanbert_jax.training.state import TrainState, to_stored
from spanbert_jax.training.step import make_train_step
from spanbert_jax.training.timer import Timer
from spanbert_jax.training.tracking import MetricsWriter


class Loop:
    """Steps from a state to the end of a run, or until its processes agree to stop.

    Attributes:
      state, step: what is trained, and the batches that it has seen.
      evaluation: figures of the last evaluation; None without one.
      bests: the steps that each scored better than all before; none where no best is chosen.
      stopping: whether the processes have agreed to stop.
    """

    def __init__(self, experiment: Experiment, state: TrainState, step: int, checkpointer: Checkpointer,
                 metadata: dict[str, Any], writer: MetricsWriter, progress: display.TrainingProgress, stop: StopRequest,
                 account: Account, profiler: Profiler):
        """Compiles nothing yet.

        Args:
          state, step: to go on from; the state is donated.
          about: what every checkpoint remembers of the run.
          stop: of this process, deferred.
          account: is charged with what the time goes into.
        """
        config, learning = experiment.config, experiment.workload
        self.state, self.step, self.evaluation, self.stopping = state, step, None, False
        self._experiment, self._config, self._learning = experiment, config, learning
        self._checkpointer, self._metadata = checkpointer, metadata
        self._writer, self._progress, self._stop = writer, progress, stop
        self._account, self._profiler = account, profiler
        self._total = experiment.size.total_steps
        self._evaluate_every = experiment.steps("evaluation", "every")
        self._save_every = experiment.steps("checkpoint", "every")
        self._step_fn = make_train_step(config, learning.objective, experiment.optimizer, experiment.schedule,
                                        experiment.abstract_state, experiment.mesh)
        self._stop_flags = {stop: stop_flags(experiment.mesh, stop) for stop in (False, True)}
        self._timer = Timer(lambda: account.spent("steps", "data"))
        self._compiled: dict[Callable, Callable] = {}
        # The update whose figures are still on their way: they are read while the next one is being computed.
        self._pending: tuple[int, np.ndarray, dict[str, jax.Array]] | None = None
        # The step whose evaluation is written already: not so if a stop has cut it short, and then it is made up for.
        self._evaluated = step if broadcast_from_zero(writer.evaluated(step)) else None
        bests = broadcast_from_zero(writer.bests(learning.metric)) if learning.metric else []
        self.bests, self._best_score = [step for step, _ in bests], bests[-1][1] if bests else -math.inf
        checkpointer.best_steps = self.bests

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be done."""
        return self.step >= self._total and not self.stopping

    def run(self) -> None:
        """Trains, and saves where it ends. Returns with everything on disk.

        Raises:
          RunFailed: when a loss or a norm is not finite, or too many bad updates come in a row.
          SavesFailed: when saving failed too often, or the last time.
          Stopped: when a stop was asked for while a program was being compiled; what was done is saved.
          UserError: on a damaged row; what was done is saved if this process is on its own.
        """
        with self._account.during("steps"), self._profiler:  # which writes its trace when the state is safe
            self._run()

    def _run(self) -> None:
        start, ending = self.step, None
        try:
            self._train()
            if self.step >= self._total:
                self._evaluate()
        except Stopped as request:
            ending = request
        except UserError as error:
            if jax.process_count() > 1:  # the others know nothing of it
                raise
            ending = error
        self._finish_pending()
        if self.stopping or isinstance(ending, Stopped):
            self._progress.say(f"step {self.step:,}: stopping by {self._stop.reason or 'a request to another process'}")
        if self.step > start:
            with self._account.during("checkpoint"):
                self._checkpointer.save_and_wait(self.step, to_stored(self.state), self._metadata)
            self._account.saved(self.step)
        if ending:
            raise ending

    def _train(self) -> None:
        """The order of things in a step."""
        config, learning = self._config, self._learning
        source, start = learning.open_rows(), self.step
        order = RowOrder(len(source), learning.rows_per_step, config.seed, learning.padding_rows)
        with contextlib.closing(device_batches(source, order.indices, range(start, self._total), self._experiment.mesh,
                                               config.mesh.rules)) as feed:
            while True:
                # Evaluate and save what the updates so far have made.
                evaluate, save = (bool(self.step and every) and self.step % every == 0
                                  for every in (self._evaluate_every, self._save_every))
                if evaluate or save or self._profiler.turns(self.step):
                    self._finish_pending()
                self._profiler.stop_after(self.step)
                # Just before the end, where it is evaluated anyway, once is enough.
                evaluate = evaluate and self._total - self.step >= self._evaluate_every / 2
                if evaluate and not self._ends() and self.step != self._evaluated:
                    self._evaluate()
                if self._ends():
                    self._finish_pending()
                    return
                if (save or self._is_best()) and self.step > start:
                    self._save()
                # Only then step, and log the update before.
                with self._profiler.step(self.step + 1):
                    with self._account.during("data"):
                        batch = next(feed)
                    self.state, metrics = self.call(self._step_fn, self.state, batch.arrays,
                                                    self._stop_flags[bool(self._stop)])
                    self.step += 1
                    self._finish_pending()
                self._pending = self.step, batch.indices, metrics

    def _ends(self) -> bool:
        """Whether to stop before the next update, which all processes find at the same step."""
        if jax.process_count() == 1:
            self.stopping = bool(self._stop)
        return self.stopping or self.step >= self._total

    def call(self, function: Callable, *arguments: Any) -> Any:
        """Calls a jitted function, compiling it first if need be; a process on its own may stop meanwhile."""
        def compile() -> Callable:
            with jax.set_mesh(self._experiment.mesh):  # which is the thread's own
                return function.lower(*arguments).compile()

        if function not in self._compiled:
            with self._account.during("compile"):
                self._compiled[function] = self._stop.interruptible(compile) if jax.process_count() == 1 else compile()
        return self._compiled[function](*arguments)

    def _finish_pending(self) -> None:
        """Waits for the figures of the last update, checks them and logs them, if that has not been done."""
        if self._pending is None:
            return
        (step, indices, metrics), self._pending = self._pending, None
        figures = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if jax.process_count() > 1:
            self.stopping = self.stopping or figures["stop"] > 0
        del figures["stop"]
        self._check(step, indices, figures)
        self._timer.lap(figures["tokens"])
        figures |= self._timer.speeds(self._learning.flops)
        log = step % self._config.train.log_every == 0 or step == self._total
        self._progress.show(step, figures, log)
        if log:
            if self._checkpointer.failures:
                figures["failed_saves"] = self._checkpointer.failures
            self._writer.write(step, "train", {name: value if math.isfinite(value) else None
                                               for name, value in figures.items()})
            self._timer.reset()

    def _check(self, step: int, indices: np.ndarray, figures: dict[str, float]) -> None:
        """Ends the run where an update says that it is no use to go on."""
        words = f"loss {figures['loss']:g}, gradient norm {figures['gradient_norm']:g}; rows {indices.tolist()}"
        in_a_row, failure = figures.get("consecutive_skips", 0), ""
        if in_a_row:
            self._progress.say(f"step {step:,}: update skipped, {figures['skipped_updates']:.0f} so far: {words}")
            if in_a_row >= self._config.skip.stop_after:
                failure = f"{in_a_row:.0f} bad updates in a row, as many as config.skip.stop_after"
        elif not all(math.isfinite(value) for value in figures.values()):
            failure = "not finite: " + ", ".join(
                f"{name} {value:g}" for name, value in figures.items() if not math.isfinite(value))
        if failure:
            raise RunFailed(f"step {step}: {failure}; {words}; the checkpoints are those of earlier steps")

    def _evaluate(self) -> None:
        """Evaluates the state; a stop cuts it short. A run that had finished before only says it again."""
        if not self._learning.can_evaluate:
            return

        def stop() -> bool:
            self.stopping = any_process(bool(self._stop))
            return self.stopping

        with self._account.during("evaluation"):
            figures = self._learning.evaluate(self.state.params, self.call, stop)
        if figures is None:
            return
        self.evaluation = figures
        if self.step != self._evaluated:
            self._writer.write(self.step, "evaluation", figures)
        self._evaluated = self.step
        self._progress.say(f"step {self.step:,}: held-out {self._learning.words(figures)}")
        metric = self._learning.metric
        if metric and figures[metric] > self._best_score:
            self._best_score = figures[metric]
            self.bests.append(self.step)

    def _is_best(self) -> bool:
        """Whether the state is the one that has scored best so far."""
        return self.bests[-1:] == [self.step]

    def _save(self) -> None:
        with self._account.during("checkpoint"):
            self._checkpointer.save(self.step, to_stored(self.state), self._metadata)
        self._account.saved(self.step)
