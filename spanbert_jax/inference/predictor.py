"""Predictions for examples, compiled once for each of a few row lengths, and the same however many rows go at once."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.inference.model_folder import FineTuned
from spanbert_jax.inference.outputs import has_entry_per_text, head_outputs, inputs_of
from spanbert_jax.tasks.features import Features
from spanbert_jax.tasks.packing import PackedRows, Unpacked, pack, row_length
from spanbert_jax.tasks.protocol import NOT_FINITE, Example, Prediction
from spanbert_jax.text import special_ids

_SHORTEST = 8  # pieces that a text in a packed row has on average, at least
# Pieces that a program computes at a time, and examples whose features are packed into rows together: enough to fill
# most of the programs. Sums are rounded otherwise in products of another shape, so these decide the last bits of a
# result, and the number of rows that are asked for at once does not.
_SIZES = {"cpu": (1024, 512)}
_SIZES_ELSEWHERE = (16_384, 8192)
_DEVICES = "devices"

# From parameters and rows to outputs by name.
Program = Callable[[Any, Mapping[str, jax.Array]], dict[str, jax.Array]]


def group_size() -> int:
    """How many examples are to be predicted for together, by those who have many."""
    return _sizes()[1]


def _sizes() -> tuple[int, int]:
    return _SIZES.get(jax.default_backend(), _SIZES_ELSEWHERE)


class Predictor:
    """A fine-tuned network that predicts on all devices of this process."""

    def __init__(self, fine_tuned: FineTuned, batch_size: int = 32):
        """`batch_size`: rows that are sent to each device at once, as many at least as a program computes at a time; it
        changes speed and memory, and no result."""
        self.task, self._fine_tuned, self._batch_size = fine_tuned.task, fine_tuned, batch_size
        self._pad = special_ids(fine_tuned.tokenizer).pad
        devices = np.array(jax.local_devices())
        self._devices, self._mesh = len(devices), Mesh(devices, _DEVICES)
        params = jax.device_put(fine_tuned.params, NamedSharding(self._mesh, PartitionSpec()))
        self._params = self._laid_out(params)
        self._compute = _in_chunks(self._program(), self._mesh)

    def _program(self) -> Program:
        return head_outputs(self._fine_tuned.model)

    def _laid_out(self, params: Any) -> Any:
        return params

    def __call__(self, examples: Sequence[Example], faults: DataIssues, labelled: bool = False) -> list[Prediction]:
        """The prediction of each example; the last bits of its scores depend on what comes in the same call.

        Args:
          labelled: whether the examples are, so that labels which the network cannot give are counted.
        """
        features = self.task.features(examples, self._fine_tuned.tokenizer, faults, labelled)
        predictions = self.task.decode(examples, features, self.outputs(features))
        for example, prediction in zip(examples, predictions, strict=True):
            if NOT_FINITE in prediction.get("note", ""):
                faults.add("predictions of which " + NOT_FINITE, f"{example.where} (id {example.id})")
        return predictions

    def outputs(self, features: Features) -> dict[str, np.ndarray]:
        """What the network says of features, as `Task.decode` takes it."""
        length = row_length(features.lengths)
        rows = pack(features, length, self._pad, most=length // _SHORTEST)
        unpacked = Unpacked(rows, has_entry_per_text(self._fine_tuned.model))
        for numbers, outputs in self._in_batches(rows):
            unpacked.add(numbers, outputs)
        return unpacked.outputs

    def _in_batches(self, rows: PackedRows) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Yields numbers of rows, ascending and -1 for padding at the end, and what is computed of these rows."""
        chunk = max(1, _sizes()[0] // rows.length) if len(rows) > 1 else 1
        chunks = max(1, self._batch_size // chunk)  # of a device
        at_once = self._devices * chunks * chunk
        for first in range(0, len(rows), at_once):
            numbers = np.arange(first, first + at_once)
            numbers[numbers >= len(rows)] = -1
            batch = {name: values.reshape(-1, chunk, *values.shape[1:])
                     for name, values in self._inputs(rows, numbers).items()}
            real = np.any(numbers.reshape(self._devices, chunks, chunk) >= 0, axis=2).sum(axis=1)
            with jax.set_mesh(self._mesh):  # whatever mesh a run around this has
                outputs = jax.device_get(self._compute(self._params, batch, real))
            yield numbers, {name: values.reshape(-1, *values.shape[2:]) for name, values in outputs.items()}

    def _inputs(self, rows: PackedRows, numbers: np.ndarray) -> dict[str, np.ndarray]:
        return inputs_of(rows.rows(numbers))


def _in_chunks(program: Program, mesh: Mesh) -> Callable[[Any, Mapping[str, jax.Array], jax.Array],
                                                         dict[str, jax.Array]]:
    """A jitted function from parameters, chunks of rows and how many chunks of each device are real to the outputs.

    Each device has its share of the chunks and does one after the other.
    """
    def compute(params: Any, batch: Mapping[str, jax.Array], count: jax.Array) -> dict[str, jax.Array]:
        def chunk(index: int) -> dict[str, jax.Array]:
            return program(params, {name: values[index] for name, values in batch.items()})

        chunks = batch["tokens"].shape[0]
        blank = {name: jnp.zeros((chunks, *leaf.shape), leaf.dtype) for name, leaf in jax.eval_shape(chunk, 0).items()}
        return jax.lax.fori_loop(0, count[0], lambda index, done: {
            name: done[name].at[index].set(values) for name, values in chunk(index).items()}, blank)

    share = PartitionSpec(_DEVICES)
    return jax.jit(jax.shard_map(compute, mesh=mesh, in_specs=(PartitionSpec(), share, share), out_specs=share,
                                 check_vma=False))
