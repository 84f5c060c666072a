"""The fine-tuning workload: a task's rows, objective and evaluation, as the training loop takes them."""
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from spanbert_jax.common.files import write_text
from spanbert_jax.common.formatting import format_metric, format_plural
from spanbert_jax.common.issues import format_issues
from spanbert_jax.finetuning.config import FinetuningConfig
from spanbert_jax.finetuning.dataset import Dataset
from spanbert_jax.finetuning.evaluation import Predicted, StopRequested, TaskEvaluator
from spanbert_jax.inference.model_folder import TASK_FILE, StoredTask
from spanbert_jax.model.losses import LossSums, add_rows
from spanbert_jax.tasks.packing import PackedRows
from spanbert_jax.tasks.protocol import Task
from spanbert_jax.training.mesh import batch_ways
from spanbert_jax.training.workload import Batch, Call, Objective, ShouldStop

_LOCATIONS_SHOWN = 5  # of the examples of a row
# Relative difference between requested and actual examples per step that is not reported.
_TOLERANCE = 0.15


class TaskWorkload:
    """A `training.workload.Workload`; see there."""

    def __init__(self, config: FinetuningConfig, dataset: Dataset, model: nn.Module, local_model: nn.Module,
                 mesh: Mesh):
        """Compiles nothing yet; `local_model`: the same model with attention that any device computes."""
        task, rows = dataset.task, dataset.rows["train"]
        self.dataset, self.model, self.local_model = dataset, model, local_model
        self.metric = task.loss_evaluation.metric if task.loss_evaluation else task.metric
        self.rows_per_step, self.length = rows_per_step(config, dataset), rows.length
        self.padding_rows = -self.rows_per_step % (batch_ways(mesh, config.mesh.rules) * config.train.accumulation)
        self.objective = task_objective(model, task)
        self.flops = task.step_flops(model, rows, self.rows_per_step)
        self.identity = dataset.identity
        self.can_evaluate = "dev" in dataset.rows
        self.latest: Predicted | None = None  # the dev predictions of the last evaluation
        self.evaluator = TaskEvaluator(dataset, model, local_model, mesh, config.mesh.rules,
                                       config.evaluation.batch_size)
        self._config = config

    def open_rows(self) -> PackedRows:
        """The training rows."""
        return self.dataset.rows["train"]

    def describe_row(self, number: int) -> str:
        """The locations of the examples of a training row."""
        rows, examples = self.dataset.rows["train"], self.dataset.examples["train"]
        found = np.unique(rows.features.example[rows.features_of(number, number)]).tolist()
        more = len(found) - _LOCATIONS_SHOWN
        return ", ".join(examples[index].location for index in found[:_LOCATIONS_SHOWN]) + (
            f" and {more} more" if more > 0 else "")

    def initial_params(self) -> Any:
        """The task's initial parameters, on the host."""
        return self.dataset.task.initial_params(self.model, self._config.init_from, self.dataset.tokenizer,
                                                self._config.seed)

    def evaluate(self, params: Any, call: Call, should_stop: ShouldStop) -> dict[str, Any] | None:
        """Metrics on the dev examples; None if `should_stop`, called after each batch, returned true."""
        task = self.dataset.task
        try:
            if task.loss_evaluation:
                return self.evaluator.mean_loss("dev", params, call, should_stop)
            self.latest = self.evaluator.predict("dev", task, params, call, should_stop)
        except StopRequested:
            self.latest = None
            return None
        return self.latest.metrics

    def format_metrics(self, metrics: Mapping[str, Any]) -> str:
        """Metrics in one line, without those by type, of which there may be many."""
        text = ", ".join(f"{name} {format_metric(name, value)}" for name, value in metrics.items()
                         if isinstance(value, float) and "/" not in name)
        return f"{text} ({format_plural(metrics['examples'], 'example')})" if "examples" in metrics else text

    def summary(self) -> list[str]:
        """Descriptions of the data, one line each; the first is shown with the parameters and the mesh."""
        rows, parts = self.dataset.rows["train"], self.dataset.examples
        held_out = ", ".join(f"{len(examples):,} {part}" for part, examples in parts.items() if part != "train")
        lines = [f"{format_plural(len(parts['train']), 'training example')}{f' ({held_out})' * bool(held_out)} as "
                 f"{format_plural(len(rows.features), 'feature')} in {format_plural(len(rows), 'row')} of "
                 f"{rows.length} tokens, {rows.filled:.1%} full; {format_plural(self.rows_per_step, 'row')} a step"]
        examples, requested = self.rows_per_step * len(parts["train"]) / len(rows), self._config.train.batch_size
        if abs(examples / requested - 1) > _TOLERANCE:
            lines.append(f"config.train.batch_size={requested}: a step has {examples:.1f} examples on average, the "
                         f"nearest possible number: a row holds {len(parts['train']) / len(rows):.1f}.")
        lines += format_issues(self.dataset.issues)
        if not self.can_evaluate:
            lines.append("There are no dev examples: nothing is evaluated, and the last checkpoint is used; set "
                         "config.task.dev or config.task.dev_fraction to use the best one.")
        return lines

    def write_artifacts(self, workdir: pathlib.Path) -> None:
        """Writes the files that export and predict need."""
        write_text(workdir / "tokenizer.json", self.dataset.tokenizer.to_str(pretty=True))
        stored = StoredTask(self._config.task.name, self.dataset.task, self._config.plugins)
        write_text(workdir / TASK_FILE, stored.to_json())


def rows_per_step(config: FinetuningConfig, dataset: Dataset) -> int:
    """Rows that contain `config.train.batch_size` examples on average, whatever the devices."""
    return max(1, round(config.train.batch_size * len(dataset.rows["train"]) / len(dataset.examples["train"])))


def task_objective(model: nn.Module, task: Task) -> Objective:
    """The task's loss, divided by the number of targets in the whole batch."""
    def terms(params: Any, batch: Batch, key: jax.Array | None) -> dict[str, LossSums]:
        return {"task": task.loss(task.apply(model, params, batch, key), batch)}

    def counts(batch: Batch) -> dict[str, jax.Array]:
        # The number of targets does not depend on the outputs, so the model is not computed for it.
        def outputs(key: jax.Array) -> Any:
            return task.apply(model, nn.unbox(model.init(key, **model.dummy_inputs))["params"], batch)

        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(outputs, jax.random.key(0)))
        return {"task": add_rows(task.loss(zeros, batch)).count}

    def loss(terms: Mapping[str, LossSums], counts: Mapping[str, jax.Array]) -> jax.Array:
        return terms["task"].loss / jnp.maximum(counts["task"], 1.0)

    return Objective(lambda key, batch: batch, counts, terms, loss)
