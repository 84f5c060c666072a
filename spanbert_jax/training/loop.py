"""The run: evaluate and save what is due, then draw a batch, step, log."""
from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from spanbert_jax.corpus import RowOrder, RowSource, batches
from spanbert_jax.errors import RunFailed, UserError
from spanbert_jax.model import train_step_flops
from spanbert_jax.training import display
from spanbert_jax.training.checkpoints import FOLDER, Checkpointer
from spanbert_jax.training.config import validate
from spanbert_jax.training.evaluation import evaluate_params, log_unigram, make_evaluate_batch
from spanbert_jax.training.experiment import (
    Experiment,
    build,
    check_devices,
    find_corpus,
    parameter_count,
    use_compilation_cache,
)
from spanbert_jax.training.host_memory import keep_freed_memory
from spanbert_jax.training.mesh import batch_sharding, global_array
from spanbert_jax.training.state import create_state
from spanbert_jax.training.step import make_train_step
from spanbert_jax.training.stopping import StopRequest
from spanbert_jax.training.tracking import MetricsWriter, hold, write_text

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What came of a run.

    Attributes:
      workdir: where it lies.
      step: updates done.
      finished: whether that is all of them; if not, the run was stopped and the same call goes on.
      parameters: of the network.
      seconds: of this call.
      evaluation: figures of the last evaluation as in `evaluation.summarize`; None without validation rows.
    """
    workdir: pathlib.Path
    step: int
    finished: bool
    parameters: int
    seconds: float
    evaluation: dict[str, Any] | None


def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> RunResult:
    """Pretrains what a config describes, or goes on where a run in `workdir` stopped.

    The workdir gets the config, the tokenizer, checkpoints, metrics.jsonl, TensorBoard files and, where the config
    names raw sources, the prepared corpus.

    Raises:
      UserError: one line about the field of the config, the data or the checkpoint that does not go.
      RunFailed: when a loss or a norm is not finite; the checkpoints stay as they are.
    """
    began = time.monotonic()
    validate(config)
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    use_compilation_cache()
    check_devices(config)
    with hold(workdir):
        experiment = build(config, find_corpus(config, workdir))
        with jax.set_mesh(experiment.mesh):
            result = Run(experiment, workdir).go()
    return dataclasses.replace(result, seconds=time.monotonic() - began)


class Run:
    """One call's part of a run."""

    def __init__(self, experiment: Experiment, workdir: pathlib.Path):
        """Compiles nothing and reads no checkpoint yet."""
        self.experiment, self.workdir, self.config = experiment, workdir, experiment.config
        config, corpus = experiment.config, experiment.corpus
        self.console = display.make_console()
        self.total = experiment.size.total_steps
        self.evaluate_every = experiment.steps("evaluation", "every")
        self.save_every = experiment.steps("checkpoint", "every")
        self.step_fn = make_train_step(config, experiment.model, experiment.masker, experiment.optimizer,
                                       experiment.schedule, experiment.abstract, experiment.mesh)
        self.flops = train_step_flops(experiment.model.config, config.train.batch_size, corpus.length,
                                      experiment.masker.max_masked)
        self.validation = RowSource(corpus, "validation") if corpus.num_rows["validation"] else None
        self.evaluate_batch = make_evaluate_batch(experiment.model, experiment.masker, log_unigram(corpus),
                                                  experiment.mesh, config.mesh.rules)
        self.sharding = batch_sharding(experiment.mesh, config.mesh.rules)
        self.evaluation: dict[str, Any] | None = None

    def go(self) -> RunResult:
        """Trains to the end, or until a signal asks to stop."""
        keep_every = self.experiment.steps("checkpoint", "keep_every")
        with Checkpointer(self.workdir, keep=self.config.checkpoint.keep, keep_every=keep_every) as checkpointer:
            start = checkpointer.latest() or 0
            self._introduce(start)
            if start:
                state = checkpointer.restore(start, self.experiment.abstract)
            else:
                state = create_state(self.experiment.model, self.experiment.optimizer, self.experiment.abstract,
                                     self.config.seed)
            # Not before the checkpoint has been found to fit: a wrong config leaves the run's own in place.
            self._keep_tokenizer(start)
            write_text(self.workdir / CONFIG_FILE, self.config.to_json_best_effort(indent=2) + "\n")
            with (MetricsWriter(self.workdir, start) as self.writer, StopRequest() as stop,
                  display.TrainingProgress(self.console, self.total, start) as self.progress):
                state, step = self._loop(state, start, checkpointer, stop)
                if step >= self.total:
                    self._evaluate(step, state, record=step > start)
                if step > start:
                    self._save(checkpointer, step, state)
                checkpointer.wait()
        parameters = parameter_count(self.experiment.model.config, self.experiment.abstract.params)
        return RunResult(self.workdir, step, step >= self.total, parameters, 0.0, self.evaluation)

    def _loop(self, state: Any, start: int, checkpointer: Checkpointer, stop: StopRequest) -> tuple[Any, int]:
        """The order of things in a step. Returns the state and the updates done."""
        corpus, config = self.experiment.corpus, self.config
        source = RowSource(corpus, "train")
        order = RowOrder(len(source), config.train.batch_size, config.seed)
        # The update whose figures are still on their way: they are read while the next one is being computed.
        pending = None
        # The first update of a call takes as long as compilation does and says nothing of the speed.
        self.timer, self.compiling = _Timer(), True
        for step, indices, rows in batches(source, order, start):
            # Evaluate and save what the updates so far have made.
            evaluate, save = (step > start and every and step % every == 0
                              for every in (self.evaluate_every, self.save_every))
            ends = step >= self.total or bool(stop)
            if ends or evaluate or save:
                self._finish(pending)
                pending = None
            # A run that stops here goes on from here, so what is due is done before; the end has its own.
            if evaluate and step < self.total:
                with self.timer.pause():
                    self._evaluate(step, state)
            if ends:
                return state, step
            if save:
                with self.timer.pause():
                    self._save(checkpointer, step, state)
            # Only then step, and log the update before.
            batch = {name: global_array(self.sharding, values) for name, values in rows.items()}
            state, metrics = self.step_fn(state, batch)
            self._finish(pending)
            pending = (step + 1, indices, metrics)
        raise AssertionError("the order of rows has no end")

    def _finish(self, pending: tuple[int, np.ndarray, dict[str, jax.Array]] | None) -> None:
        """Waits for an update's figures, checks them and logs them."""
        if pending is None:
            return
        step, indices, metrics = pending
        figures = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not all(math.isfinite(value) for value in figures.values()):
            raise RunFailed(
                f"step {step}: not finite: " + ", ".join(f"{name} {value:g}" for name, value in figures.items())
                + f"; rows {indices.tolist()}; the checkpoints are those of earlier steps")
        self.timer.lap(figures["tokens"])
        figures |= self.timer.speeds(self.flops)
        log = step % self.config.train.log_every == 0 or step == self.total
        self.progress.show(step, figures, log)
        if log:
            self.writer.write(step, "train", figures)
        if log or self.compiling:
            self.timer.reset()
        self.compiling = False

    def _evaluate(self, step: int, state: Any, record: bool = True) -> None:
        """Evaluates a state. A run that had finished before only says it again."""
        if self.validation is None:
            return
        evaluation, mesh = self.config.evaluation, self.experiment.mesh
        self.evaluation = evaluate_params(
            self.evaluate_batch, state.params, self.validation, evaluation.batch_size, evaluation.max_rows, mesh,
            self.config.mesh.rules)
        if record:
            self.writer.write(step, "evaluation", self.evaluation)
        self.progress.say(f"step {step:,}: held-out {display.evaluation_words(self.evaluation)}")

    def _save(self, checkpointer: Checkpointer, step: int, state: Any) -> None:
        checkpointer.save(step, state, self.config.to_dict())

    def _keep_tokenizer(self, start: int) -> None:
        """Copies the tokenizer beside the checkpoints, whose ids mean nothing under another."""
        own, given = self.workdir / TOKENIZER_FILE, self.experiment.corpus.tokenizer_path
        if start and own.exists() and own.read_bytes() != given.read_bytes():
            raise UserError(f"{self.workdir}: its run was trained with another tokenizer than that of "
                            f"{self.experiment.corpus.path}; use its own corpus, or another workdir")
        shutil.copyfile(given, own)

    def _introduce(self, start: int) -> None:
        """Says what is about to run."""
        corpus, params = self.experiment.corpus, self.experiment.abstract.params
        self.console.print(display.parameter_table(params))
        mesh = ", ".join(f"{axis} {size}" for axis, size in self.experiment.mesh.shape.items())
        self.console.print(
            f"{parameter_count(self.experiment.model.config, params):,} parameters; mesh {mesh}; "
            f"{corpus.num_rows['train']:,} training rows of {corpus.length} tokens from {corpus.path}; "
            f"{self.config.train.batch_size} rows a step, {self.total:,} steps, "
            f"{display.quantity(self.flops, 'FLOP')} a step")
        if self.validation is None:
            self.console.print("The corpus has no validation rows, so nothing is evaluated; prepare it from more than "
                               "one document to have some.")
        if start:
            self.console.print(f"Going on from the checkpoint of step {start:,} in {self.workdir / FOLDER}.")


class _Timer:
    """Time spent in updates since the last reset, without pauses, and the tokens that went through."""

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        self._since, self._laps, self._tokens = time.monotonic(), 0, 0.0

    def lap(self, tokens: float) -> None:
        self._laps += 1
        self._tokens += tokens

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._since += time.monotonic() - began

    def speeds(self, flops: float) -> dict[str, float]:
        """Speeds of the updates lapped, each of `flops` operations."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        return {"seconds_per_step": seconds / self._laps, "tokens_per_second": self._tokens / seconds,
                "model_flops_per_second": flops * self._laps / seconds}
