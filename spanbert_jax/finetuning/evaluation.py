"""Evaluation of a task during and after training, on the devices of the run."""
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spanbert_jax.finetuning.dataset import Dataset
from spanbert_jax.inference.executors import ChunkedExecutor, Compute, Inputs, MeshExecutor, collect_outputs
from spanbert_jax.model.losses import add_rows
from spanbert_jax.tasks.packing import PackedRows
from spanbert_jax.tasks.protocol import Prediction, Task, evaluate_predictions
from spanbert_jax.text import special_ids
from spanbert_jax.training.mesh import Rules
from spanbert_jax.training.workload import Call, ShouldStop


class StopRequested(Exception):
    """Evaluation was stopped between two batches."""


class Predicted(NamedTuple):
    """Predictions of a part."""
    task: Task  # the task that decoded them, tuned if the part is "dev"
    predictions: list[Prediction]  # one per example
    metrics: dict[str, Any]  # "loss" over the targets, if prediction computes it; and those of `evaluate_predictions`


class TaskEvaluator:
    """Predicts and evaluates the parts of a dataset with given parameters."""

    def __init__(self, dataset: Dataset, model: nn.Module, local_model: nn.Module, mesh: Mesh, rules: Rules,
                 batch_size: int):
        """Compiles nothing yet; `local_model`: the same one, for one device; `batch_size`: rows over all devices."""
        task, self._dataset, self._mesh, self._batch_size = dataset.task, dataset, mesh, batch_size

        def executor(compute: Compute, inputs: Inputs) -> MeshExecutor:
            return MeshExecutor(compute, inputs, mesh, rules, batch_size)

        program = task.program(model, dataset.tokenizer)
        self._program = task.program(local_model, dataset.tokenizer) if program.local else program
        if self._program.compute_with_loss:
            self._executor = executor(self._program.compute_with_loss, lambda batch: batch)
        else:
            self._executor = executor(lambda params, batch: (program.compute(params, batch), None), program.inputs)
        if loss := task.loss_evaluation:
            self._loss_metrics = loss.metrics
            self._loss_executor = executor(
                lambda params, batch: add_rows(loss.loss(task.apply(model, params, batch), batch)), lambda batch: batch)

    def mean_loss(self, part: str, params: Any, call: Call, should_stop: ShouldStop) -> dict[str, float]:
        """Metrics of the task's `loss_evaluation` on a part. Raises StopRequested if `should_stop` returns true."""
        sums = np.zeros(3)
        for _, batch_sums in self._run(self._loss_executor, self._dataset.rows[part], params, call, should_stop):
            sums += [float(value) for value in batch_sums]
        return self._loss_metrics(*sums.tolist())

    def predict(self, part: str, task: Task, params: Any, call: Call,
                should_stop: ShouldStop = lambda: None) -> Predicted:
        """Predictions of a part; those of "dev" tune the task, and are decoded again if that changes it.

        Raises StopRequested if `should_stop`, called after each batch, returns true.
        """
        examples, rows = self._dataset.examples[part], self._dataset.rows[part]
        outputs, loss = self._outputs(rows, params, call, should_stop)
        predictions = task.decode(examples, rows.features, outputs)
        tuned = task.tune(examples, predictions) if part == "dev" else task
        if tuned != task:
            predictions = tuned.decode(examples, rows.features, outputs)
        return Predicted(tuned, predictions, loss | evaluate_predictions(tuned, examples, predictions))

    def _outputs(self, rows: PackedRows, params: Any, call: Call,
                 should_stop: ShouldStop) -> tuple[dict[str, Any], dict[str, float]]:
        """Outputs for rows, and their mean loss as {"loss"}; {} if the program computes none."""
        program, sums = self._program, np.zeros(2)

        def run(packed: PackedRows) -> Iterator[tuple[np.ndarray, Any]]:
            nonlocal sums
            for numbers, (outputs, loss) in self._run(self._executor, packed, params, call, should_stop):
                sums += (0.0, 0.0) if loss is None else (float(loss.loss), float(loss.count))
                yield numbers, outputs

        if not program.local:
            outputs = collect_outputs(program, run, rows.features, [rows], params)
            return outputs, {"loss": float(sums[0] / sums[1])} if sums[1] else {}
        # Every process predicts all examples on its own devices.
        whole = jax.jit(lambda tree: tree, out_shardings=NamedSharding(self._mesh, PartitionSpec()))(params)
        local = jax.tree.map(lambda leaf: leaf.addressable_data(0), whole)
        executor = ChunkedExecutor(program.compute, program.inputs, local, self._batch_size, program.prepare_params)
        row_sets = self._dataset.task.prediction_rows(rows.features, special_ids(self._dataset.tokenizer).pad)
        return collect_outputs(program, executor, rows.features, row_sets, executor.params), {}

    def _run(self, executor: MeshExecutor, rows: PackedRows, params: Any, call: Call,
             should_stop: ShouldStop) -> Iterator[tuple[np.ndarray, Any]]:
        for numbers, outputs in executor(rows, params, call):
            yield numbers, outputs
            if should_stop():
                raise StopRequested
