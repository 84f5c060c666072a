"""A task as what a run learns."""
from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spanbert_jax.common.files import write_text
from spanbert_jax.common.issues import format_issues
from spanbert_jax.finetuning.config import FinetuningConfig
from spanbert_jax.finetuning.dataset import Dataset
from spanbert_jax.inference.model_folder import TASK_FILE, describe_task
from spanbert_jax.inference.outputs import apply, has_entry_per_text, head_outputs, inputs_of
from spanbert_jax.model import EncoderModel, ModelConfig, train_step_flops
from spanbert_jax.model.losses import LossSums
from spanbert_jax.tasks.packing import PackedRows, Unpacked, split_rows
from spanbert_jax.tasks.protocol import Prediction, Task
from spanbert_jax.training.batches import global_array, local_batch_indices
from spanbert_jax.training.init_from import initial_params
from spanbert_jax.training.mesh import batch_sharding, batch_ways
from spanbert_jax.training.objective import Batch, Objective
from spanbert_jax.training.workload import Call

_TERM = "task"
# How far the examples in a step may be from what is asked for without a word.
_ROUNDING = 0.15


def task_objective(model: EncoderModel, task: Task) -> Objective:
    """The task's loss, divided by the number of its targets in the whole batch."""
    def loss_sums(params: Any, batch: Batch, key: jax.Array | None) -> dict[str, LossSums]:
        return {_TERM: task.loss(apply(model, params, batch, key), batch)}

    def counts(batch: Batch) -> dict[str, jax.Array]:
        # How many targets there are does not depend on what the network says, so that it need not be asked.
        shapes = jax.eval_shape(lambda key: apply(model, nn.unbox(model.init(key, **model.smallest_inputs))["params"],
                                                  batch), jax.random.key(0))
        return {_TERM: task.loss(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes), batch).count}

    def loss(sums: Mapping[str, LossSums], counts: Mapping[str, jax.Array]) -> jax.Array:
        return sums[_TERM].loss / jnp.maximum(counts[_TERM], 1.0)

    return Objective(lambda key, batch: batch, counts, loss_sums, loss)


class TaskWorkload:
    """A `training.workload.Workload`; see there.

    Attributes:
      latest: the dev predictions of the last evaluation; None without one.
    """

    def __init__(self, config: FinetuningConfig, dataset: Dataset, model: EncoderModel, mesh: Mesh):
        rows = dataset.rows["train"]
        self.dataset, self.task, self.metric = dataset, dataset.task, dataset.task.metric
        self.rows_per_step, self.length = rows_per_step(config, dataset), rows.length
        self.padding_rows = -self.rows_per_step % (batch_ways(mesh, config.mesh.rules) * config.train.accumulation)
        self.objective = task_objective(model, self.task)
        self.flops = train_step_flops(model.config, self.rows_per_step, rows.length, 0)
        self.identity = dataset.identity
        self.can_evaluate = "dev" in dataset.rows
        self.latest: list[Prediction] | None = None
        self._config, self._model, self._mesh = config, model, mesh

    @property
    def plain_model(self) -> EncoderModel:
        """The network with attention as it can be computed anywhere."""
        return self._model.clone(config=dataclasses.replace(self._model.config, attention=ModelConfig.attention))

    def open_rows(self) -> PackedRows:
        return self.dataset.rows["train"]

    def initial_params(self) -> Any:
        return initial_params(self._config, self._model, self.dataset.tokenizer)

    def evaluate(self, params: Any, call: Call, stop: Callable[[], bool | None]) -> dict[str, Any] | None:
        self.latest = self.predict("dev", params, call, stop)
        return None if self.latest is None else self.task.score(self.dataset.examples["dev"], self.latest)

    def predict(self, part: str, params: Any, call: Call, stop: Callable[[], bool | None],
                ) -> list[Prediction] | None:
        """The predictions for a part; the task is tuned by those for "dev". None if `stop` has ended it."""
        rows, examples = self.dataset.rows[part], self.dataset.examples[part]
        unpacked = Unpacked(rows, has_entry_per_text(self._model))
        sharding = batch_sharding(self._mesh, self._config.mesh.rules)
        size = self._config.evaluation.batch_size
        places = local_batch_indices(sharding, size)
        for numbers in split_rows(rows, size):
            batch = {name: global_array(sharding, values, places, size)
                     for name, values in inputs_of(rows.rows(numbers[places])).items()}
            unpacked.add(numbers, jax.device_get(call(self._outputs, params, batch)))
            if stop():
                return None
        predictions = self.task.decode(examples, rows.features, unpacked.outputs)
        facts = dict(self.task.facts)
        if part == "dev":
            self.task.tune(examples, predictions)
        if self.task.facts != facts:
            predictions = self.task.decode(examples, rows.features, unpacked.outputs)
        return predictions

    @functools.cached_property
    def _outputs(self) -> Callable:
        rules = self._config.mesh.rules

        def outputs(params: Any, batch: Batch) -> dict[str, jax.Array]:
            with nn.logical_axis_rules(rules):
                return head_outputs(self._model)(params, batch)

        return jax.jit(outputs, in_shardings=(None, batch_sharding(self._mesh, rules)),
                       out_shardings=NamedSharding(self._mesh, PartitionSpec()))

    def format_metrics(self, figures: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} {value:.4g}" for name, value in figures.items()
                         if isinstance(value, float) and "/" not in name)  # by type, of which there may be many

    def summary(self) -> list[str]:
        rows, parts = self.dataset.rows["train"], self.dataset.examples
        held_back = ", ".join(f"{len(examples):,} {part}" for part, examples in parts.items() if part != "train")
        words = [f"{len(parts['train']):,} training examples{f' ({held_back})' * bool(held_back)} as "
                 f"{len(rows.features):,} features in {len(rows):,} rows of {rows.length} pieces, "
                 f"{rows.filled:.1%} full; {self.rows_per_step} rows a step"]
        examples, asked = self.rows_per_step * len(parts["train"]) / len(rows), self._config.train.batch_size
        if abs(examples / asked - 1) > _ROUNDING:
            words.append(f"config.train.batch_size={asked} is met by {examples:.1f} examples a step, no better, for a "
                         f"row holds {len(parts['train']) / len(rows):.1f}.")
        words += format_issues(self.dataset.faults)
        if not self.can_evaluate:
            words.append("There are no dev examples, so nothing is evaluated and the last checkpoint is the one taken; "
                         "give config.task.dev or config.task.dev_fraction to have the best.")
        return words

    def write_artifacts(self, workdir: pathlib.Path) -> None:
        self.dataset.tokenizer.save(str(workdir / "tokenizer.json"))
        text = json.dumps(describe_task(self._config.task.name, self.task), indent=2, ensure_ascii=False)
        write_text(workdir / TASK_FILE, text + "\n")


def rows_per_step(config: FinetuningConfig, dataset: Dataset) -> int:
    """Rows that hold `config.train.batch_size` examples on average, whatever the devices."""
    return max(1, round(config.train.batch_size * len(dataset.rows["train"]) / len(dataset.examples["train"])))
