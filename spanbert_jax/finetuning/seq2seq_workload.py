"""A task whose answers are written, as what a run learns."""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spanbert_jax.finetuning.config import FinetuningConfig
from spanbert_jax.finetuning.dataset import Dataset
from spanbert_jax.finetuning.decoders import writing_params
from spanbert_jax.finetuning.workload import TaskWorkload, task_objective
from spanbert_jax.inference.generator import Generator
from spanbert_jax.inference.model_folder import FineTuned
from spanbert_jax.model import EncoderDecoder, decoder_step_flops
from spanbert_jax.tasks import make_task
from spanbert_jax.tasks.packing import split_rows
from spanbert_jax.tasks.protocol import Prediction
from spanbert_jax.training.batches import global_array, local_batch_indices
from spanbert_jax.training.mesh import batch_sharding
from spanbert_jax.training.workload import Call


class Seq2SeqWorkload(TaskWorkload):
    """A `training.workload.Workload`. The best network is the one to which the dev targets are likeliest: to write them
    takes many times as long, and is done in the end."""

    def __init__(self, config: FinetuningConfig, dataset: Dataset, model: EncoderDecoder, mesh: Mesh):
        super().__init__(config, dataset, model, mesh)
        rows = dataset.rows["train"]
        self.metric = "log_likelihood"
        self.flops += decoder_step_flops(model.decoder_config, self.rows_per_step, rows.label_length, rows.length)
        # Smoothed, it would be no likelihood.
        exact = make_task(config.task.name, {**self.task.settings, "label_smoothing": 0.0}, self.task.facts)
        self._likelihood = task_objective(model, exact)
        self._terms = jax.jit(self._sums, in_shardings=(None, batch_sharding(mesh, config.mesh.rules)),
                              out_shardings=NamedSharding(mesh, PartitionSpec()))

    def initial_params(self) -> Any:
        return writing_params(self._config, self._model, self.task, self.dataset.tokenizer)

    def _sums(self, params: Any, batch: Mapping[str, jax.Array]) -> Any:
        with nn.logical_axis_rules(self._config.mesh.rules):
            return self._likelihood.loss_sums(params, batch, None)

    def evaluate(self, params: Any, call: Call, stop: Callable[[], bool | None]) -> dict[str, Any] | None:
        """How likely each piece of the dev targets is, given what comes before it."""
        rows, size = self.dataset.rows["dev"], self._config.evaluation.batch_size
        sharding = batch_sharding(self._mesh, self._config.mesh.rules)
        places, loss, correct, count = local_batch_indices(sharding, size), 0.0, 0.0, 0.0
        for numbers in split_rows(rows, size):
            batch = {name: global_array(sharding, values, places, size)
                     for name, values in rows.rows(numbers[places]).items()}
            (term,) = jax.device_get(call(self._terms, params, batch)).values()
            loss, correct, count = loss + float(term.loss), correct + float(term.correct), count + float(term.count)
            if stop():
                return None
        return {"log_likelihood": -loss / count, "perplexity": math.exp(min(loss / count, 700.0)),
                "accuracy": 100.0 * correct / count}

    def predict(self, part: str, params: Any, call: Call, stop: Callable[[], bool | None]) -> list[Prediction]:
        """What is written for a part; every process writes all of it, on its own devices."""
        whole = jax.jit(lambda tree: tree, out_shardings=NamedSharding(self._mesh, PartitionSpec()))(params)
        local = jax.tree.map(lambda leaf: leaf.addressable_data(0), whole)
        fine_tuned = FineTuned(self._config.task.name, self.task, self.plain_model, local, self.dataset.tokenizer)
        generator = Generator(fine_tuned, self._config.evaluation.batch_size)
        examples, features = self.dataset.examples[part], self.dataset.rows[part].features
        return self.task.decode(examples, features, generator.outputs(features))
