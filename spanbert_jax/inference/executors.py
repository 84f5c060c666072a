"""The prediction engine: runs programs over packed rows, on local devices or on a training mesh, and decodes."""
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.settings import require
from spanbert_jax.inference.model_folder import FineTuned
from spanbert_jax.tasks.features import Features, check_ids
from spanbert_jax.tasks.files.reading import Example, describe_location
from spanbert_jax.tasks.packing import PackedRows, UnpackedOutputs, split_rows
from spanbert_jax.tasks.protocol import NOT_FINITE, Prediction, Program, Task
from spanbert_jax.text import special_ids
from spanbert_jax.training.batches import device_batches
from spanbert_jax.training.memory import explained_in_prediction
from spanbert_jax.training.mesh import Rules, batch_sharding

# Positions that a compiled program computes at a time, and examples whose features are packed into rows together:
# enough to fill most of the programs. Products of another shape round their sums differently, so these two decide the
# last bits of a result; the batch size does not.
_SIZES = {"cpu": (1024, 512)}
_SIZES_ELSEWHERE = (16_384, 8192)
# Characters of a group, at most, divided by its examples, at most. Examples are usually much shorter, so only long ones
# make a group smaller.
_CHARACTERS = 4096
_DEVICES = "devices"

E = TypeVar("E")
Compute = Callable[[Any, Mapping[str, Any]], Any]
Inputs = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
Outputs = Iterator[tuple[np.ndarray, Any]]  # row numbers, ascending and -1 for padding at the end, and their outputs
Executor = Callable[[PackedRows], Outputs]


def example_groups(examples: Iterable[E]) -> Iterator[list[E]]:
    """Yields examples in the groups that are predicted at a time, of limited numbers of examples and characters."""
    most = _sizes()[1]
    group: list[E] = []
    left = most * _CHARACTERS
    for example in examples:
        count = _characters(example)
        if group and (len(group) == most or count > left):
            yield group
            group, left = [], most * _CHARACTERS
        group.append(example)
        left -= count
    if group:
        yield group


def _characters(value: Any) -> int:
    """Characters of an example: those of a text, or of all texts in a sequence or in the fields of an object."""
    if isinstance(value, str):
        return len(value)
    parts = value if isinstance(value, (tuple, list)) else getattr(value, "__dict__", {}).values()
    return sum(map(_characters, parts))


def _sizes() -> tuple[int, int]:
    return _SIZES.get(jax.default_backend(), _SIZES_ELSEWHERE)


class ChunkedExecutor:
    """Runs on all devices of this process, each with a copy of the parameters.

    Rows go through the program in chunks of a fixed shape, so that results do not depend on batch size and devices.
    """

    def __init__(self, compute: Compute, inputs: Inputs, params: Any, batch_size: int,
                 prepare_params: Callable[[Any], Any] | None = None):
        """Copies the parameters to the devices; other arguments as in `Program`.

        `batch_size`: rows sent to each device at once, at least a chunk; it changes speed and memory only.
        """
        devices = np.array(jax.local_devices())
        self._devices, self._mesh = len(devices), Mesh(devices, _DEVICES)
        self._inputs, self._batch_size = inputs, batch_size
        params = jax.device_put(params, NamedSharding(self._mesh, PartitionSpec()))
        self.params = jax.jit(prepare_params)(params) if prepare_params else params
        self._compute = _in_chunks(compute, self._mesh)

    def __call__(self, rows: PackedRows) -> Outputs:
        """The outputs for rows."""
        chunk = max(1, _sizes()[0] // rows.length) if len(rows) > 1 else 1
        chunks = max(1, self._batch_size // chunk)  # per device
        at_once = self._devices * chunks * chunk
        for numbers in split_rows(rows, at_once):
            batch = {name: values.reshape(-1, chunk, *values.shape[1:])
                     for name, values in self._inputs(rows.rows(numbers)).items()}
            counts = np.any(numbers.reshape(self._devices, chunks, chunk) >= 0, axis=2).sum(axis=1)
            with jax.set_mesh(self._mesh):  # a training run around this has another mesh
                outputs = jax.device_get(self._compute(self.params, batch, counts))
            yield numbers, {name: values.reshape(-1, *values.shape[2:]) for name, values in outputs.items()}


def _in_chunks(compute: Compute, mesh: Mesh) -> Callable[[Any, Mapping[str, np.ndarray], np.ndarray],
                                                         dict[str, jax.Array]]:
    """A jitted function from parameters, chunks of rows and each device's number of real chunks to the outputs.

    Each device computes its chunks one after the other.
    """
    def run(params: Any, batch: Mapping[str, jax.Array], count: jax.Array) -> dict[str, jax.Array]:
        def chunk(index: jax.Array | int) -> dict[str, jax.Array]:
            return compute(params, {name: values[index] for name, values in batch.items()})

        chunks = batch["tokens"].shape[0]
        blank = {name: jnp.zeros((chunks, *leaf.shape), leaf.dtype) for name, leaf in jax.eval_shape(chunk, 0).items()}
        return jax.lax.fori_loop(0, count[0], lambda index, done: {
            name: done[name].at[index].set(values) for name, values in chunk(index).items()}, blank)

    share = PartitionSpec(_DEVICES)
    return jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(PartitionSpec(), share, share), out_specs=share,
                                 check_vma=False))


class MeshExecutor:
    """Runs on the mesh of a training run, with parameters and rows split as in training.

    Every process reads and computes the rows of its devices and gets all outputs.
    """

    def __init__(self, compute: Compute, inputs: Inputs, mesh: Mesh, rules: Rules, batch_size: int):
        """Compiles nothing yet; `batch_size`: rows per batch over all devices."""
        self._inputs, self._mesh, self._rules, self._batch_size = inputs, mesh, rules, batch_size

        def run(params: Any, batch: Mapping[str, jax.Array]) -> Any:
            with nn.logical_axis_rules(rules):
                return compute(params, batch)

        self._compute = jax.jit(run, in_shardings=(None, batch_sharding(mesh, rules)),
                                out_shardings=NamedSharding(mesh, PartitionSpec()))

    def __call__(self, rows: PackedRows, params: Any, call: Callable[..., Any]) -> Outputs:
        """The outputs for rows with given parameters; `call` calls a jitted function, compiled first if necessary."""
        numbers = split_rows(rows, self._batch_size)
        feed = device_batches(_InputRows(rows, self._inputs), numbers.__getitem__, range(len(numbers)), self._mesh,
                              self._rules)
        with contextlib.closing(feed):
            for batch in feed:
                yield batch.indices, jax.device_get(call(self._compute, params, batch.arrays))


class _InputRows(NamedTuple):
    """The arrays of packed rows that a program reads: a `training.batches.Rows`."""
    packed: PackedRows
    inputs: Inputs

    def __len__(self) -> int:
        return len(self.packed)

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Rows with given numbers; -1 gives a row of padding."""
        return self.inputs(self.packed.rows(indices))


def collect_outputs(program: Program, executor: Executor, features: Features,
                    row_sets: Iterable[PackedRows], params: Any) -> dict[str, Any]:
    """A program's outputs for packed features, as `Task.decode` takes them; `params`: those that the executor reads."""
    unpacked = UnpackedOutputs(features, program.per_text)
    for rows in row_sets:
        for numbers, outputs in executor(rows):
            unpacked.add(rows, numbers, outputs)
    return program.finish(unpacked.outputs, features, params)


class Predictor:
    """A fine-tuned model that predicts on all devices of this process."""

    def __init__(self, fine_tuned: FineTuned, batch_size: int = 32):
        """Copies the parameters to the devices; `batch_size` as `ChunkedExecutor` takes it, or UserError."""
        require(batch_size >= 1, "batch_size", batch_size, "must be at least 1")
        self.task, self._tokenizer, self._model = fine_tuned.task, fine_tuned.tokenizer, fine_tuned.model
        self._pad, self._batch_size = special_ids(fine_tuned.tokenizer).pad, batch_size
        self._program = program = fine_tuned.task.program(fine_tuned.model, fine_tuned.tokenizer)
        self._executor = ChunkedExecutor(program.compute, program.inputs, fine_tuned.params, batch_size,
                                         program.prepare_params)

    def __call__(self, examples: Sequence[Example], issues: DataIssues, with_labels: bool = False,
                 task: Task | None = None) -> list[Prediction]:
        """The predictions of examples, whose last bits depend on which are in the same call.

        Args:
          with_labels: the examples have labels; labels that the model does not know are counted.
          task: decodes the outputs; None for that of the model.
        """
        features = self.task.features(examples, self._tokenizer, issues, with_labels)
        check_ids(features, self._model)
        with explained_in_prediction(self._batch_size):
            outputs = collect_outputs(self._program, self._executor, features,
                                      self.task.prediction_rows(features, self._pad), self._executor.params)
        predictions = (task or self.task).decode(examples, features, outputs)
        for example, prediction in zip(examples, predictions, strict=True):
            if NOT_FINITE in prediction.get("note", ""):
                issues.add(f"predictions where {NOT_FINITE}", describe_location(example))
        return predictions
