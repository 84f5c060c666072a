"""The training loop."""
import contextlib
from collections.abc import Callable, Generator, Mapping
from typing import Any

import jax

from spanbert_jax.cluster.agreement import any_process, broadcast_from_zero
from spanbert_jax.cluster.stopping import Stopped
from spanbert_jax.common.errors import UserError
from spanbert_jax.corpus import RowOrder
from spanbert_jax.training.batch_warmup import batch_indices
from spanbert_jax.training.batches import DeviceBatch, device_batches
from spanbert_jax.training.experiment import Experiment
from spanbert_jax.training.memory import check_memory
from spanbert_jax.training.mesh import batch_ways, stop_flags
from spanbert_jax.training.state import TrainState, to_stored
from spanbert_jax.training.step import make_train_step
from spanbert_jax.training.trackers import Metrics
from spanbert_jax.training.updates import Services, UpdateReporter


class BestTracker:
    """Follows one metric over the evaluations of a run; higher is better. `steps` are the bests so far, ascending."""

    def __init__(self, metric: str, evaluations: Mapping[int, Metrics]):
        """Args: metric: "" tracks nothing; evaluations: metrics by step of earlier attempts of this run."""
        self._metric, self._score = metric, -float("inf")
        self.steps: tuple[int, ...] = ()  # replaced as a whole, so that other threads may read it at any time
        for step, metrics in sorted(evaluations.items()):
            self.update(step, metrics)

    def update(self, step: int, metrics: Metrics) -> None:
        """Adds an evaluation."""
        score = metrics.get(self._metric)
        if isinstance(score, (int, float)) and score > self._score:
            self._score, self.steps = score, (*self.steps, step)

    def is_best(self, step: int) -> bool:
        """Whether the state after `step` updates has the best score so far."""
        return self.steps[-1:] == (step,)


class TrainingLoop:
    """Trains from a state to the end of a run, or until its processes agree to stop."""

    def __init__(self, experiment: Experiment, state: TrainState, step: int, services: Services,
                 metadata: dict[str, Any]):
        """Args: state, step: where to start; the state is donated. metadata: stored with every checkpoint."""
        self.state = state
        self.step = step  # updates done
        self.stopping = False  # whether the processes have agreed to stop
        self.evaluation: dict[str, Any] | None = None  # metrics of the last evaluation
        self._experiment, self._workload, self._services = experiment, experiment.workload, services
        self._metadata, self._first, self._total = metadata, step, experiment.total_steps
        self._evaluate_every = experiment.steps("evaluation", "every")
        self._save_every = experiment.steps("checkpoint", "every")
        self._programs: dict[Callable[..., Any], Callable[..., Any]] = {}
        self._train_step = make_train_step(experiment.config, self._workload.objective, experiment.optimizer,
                                           experiment.schedule, experiment.abstract_state, experiment.mesh,
                                           experiment.batch_warmup)
        self._stop_flags = {stop: stop_flags(experiment.mesh, stop) for stop in (False, True)}
        self._updates = UpdateReporter(experiment, services)
        evaluations = dict(broadcast_from_zero(list(services.metrics.evaluations.items())))
        # Unless a stop cut its evaluation short: then it is evaluated now.
        self._evaluated_step = step if step in evaluations else None
        self.best = BestTracker(self._workload.metric, evaluations)
        services.checkpointer.best_steps = self.best.steps

    @property
    def finished(self) -> bool:
        """Whether all steps are done and no stop was requested."""
        return self.step >= self._total and not self.stopping

    def run(self) -> None:
        """Trains, and saves the last state. Everything is on disk when it returns.

        Raises:
          RunFailed: a loss or a norm is not finite, or too many updates in a row were bad.
          SavesFailed: saving failed too often, or the last save failed.
          Stopped: a stop was requested during compilation; the state is saved.
          UserError: a row is damaged; the state is saved in a run of one process.
        """
        with self._services.goodput.during("steps"), self._services.profiler:  # writes its trace after the last save
            error: BaseException | None = None
            try:
                self._train()
                if self.step >= self._total:
                    self._evaluate()
            except Stopped as stopped:
                error = stopped
            except UserError as user_error:
                if jax.process_count() > 1:  # the others continue, so this process cannot save with them
                    raise
                error = user_error
            self._finish_update()
            if self.stopping or isinstance(error, Stopped):
                reason = self._services.stop.reason or "a request to another process"
                self._services.progress.log(f"step {self.step:,}: stopping because of {reason}")
            if self.step > self._first:
                self._save(wait=True)
            if error:
                raise error

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a jitted function. It is compiled at its first call, so the shapes must be the same at every call.

        Raises:
          Stopped: a stop was requested during compilation, in a run of one process.
          UserError: the train step does not fit in memory.
        """
        def compile() -> Callable[..., Any]:
            with jax.set_mesh(self._experiment.mesh):  # the setting belongs to the thread
                return function.lower(*arguments).compile()  # type: ignore[attr-defined]

        if function not in self._programs:
            with self._services.goodput.during("compile"):
                alone = jax.process_count() == 1
                program = self._services.stop.interruptible(compile) if alone else compile()
            if function is self._train_step and not self._programs:  # what is freed later counts as used on the host
                check_memory(program, self._experiment.config, batch_ways(self._experiment.mesh,
                                                                          self._experiment.config.mesh.rules))
            self._programs[function] = program
        return self._programs[function](*arguments)

    def _train(self) -> None:
        """Evaluates the state, saves it, and only then draws the next batch, steps, and logs."""
        goodput, profiler = self._services.goodput, self._services.profiler
        with contextlib.closing(self._batches()) as batches:
            while True:
                evaluate = self._is_due(self._evaluate_every)
                save = self._is_due(self._save_every)
                if evaluate or save or profiler.turns(self.step):
                    self._finish_update()  # so that no update is in flight
                profiler.stop_after(self.step)

                # 1. Evaluate the state, unless the evaluation at the end of the run is near.
                evaluate = evaluate and self._total - self.step >= self._evaluate_every / 2
                if evaluate and not self._ends() and self.step != self._evaluated_step:
                    self._evaluate()
                if self._ends():
                    self._finish_update()
                    return

                # 2. Save it.
                if (save or self.best.is_best(self.step)) and self.step > self._first:
                    self._save()

                # 3. Only then draw the next batch and step; 4. log the previous update meanwhile.
                with profiler.step(self.step + 1):
                    with goodput.during("data"):
                        batch = next(batches)
                    stop = self._stop_flags[bool(self._services.stop)]
                    self.state, *outputs = self.call(self._train_step, self.state, batch.arrays, stop)
                    self.step += 1
                    self._finish_update()
                self._updates.submit(self.step, batch.indices, *outputs)

    def _batches(self) -> Generator[DeviceBatch, None, None]:
        config, workload = self._experiment.config, self._workload
        rows = workload.open_rows()
        order = RowOrder(len(rows), workload.rows_per_step, config.seed, workload.padding_rows)
        indices = batch_indices(order, self._experiment.batch_warmup, workload.rows_per_step)
        return device_batches(rows, indices, range(self._first, self._total), self._experiment.mesh,
                              config.mesh.rules)

    def _is_due(self, every: int) -> bool:
        return bool(self.step and every) and self.step % every == 0

    def _ends(self) -> bool:
        """Whether to stop before the next update: all processes decide the same at the same step."""
        if jax.process_count() == 1:
            self.stopping = bool(self._services.stop)
        return self.stopping or self.step >= self._total

    def _finish_update(self) -> None:
        any_stop = self._updates.flush()
        if jax.process_count() > 1:
            self.stopping = self.stopping or any_stop

    def _evaluate(self) -> None:
        """Evaluates the state, unless a stop interrupts it. A finished run shows its metrics without writing them."""
        if not self._workload.can_evaluate:
            return

        def should_stop() -> bool:
            self.stopping = any_process(bool(self._services.stop))
            return self.stopping

        with self._services.goodput.during("evaluation"):
            metrics = self._workload.evaluate(self.state.params, self.call, should_stop)
        if metrics is None:
            return
        self.evaluation = metrics
        if self.step != self._evaluated_step:
            self._services.metrics.write(self.step, "evaluation", metrics)
        self._evaluated_step = self.step
        self._services.progress.log(f"step {self.step:,}: held-out {self._workload.format_metrics(metrics)}")
        self.best.update(self.step, metrics)
        self._services.checkpointer.best_steps = self.best.steps

    def _save(self, wait: bool = False) -> None:
        checkpointer = self._services.checkpointer
        save = checkpointer.save_and_wait if wait else checkpointer.save
        with self._services.goodput.during("checkpoint"):
            save(self.step, to_stored(self.state), self._metadata)
        self._services.goodput.saved(self.step)
