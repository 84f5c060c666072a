"""The prediction engine: features through a task's program, outputs put back in order, decoded."""
from collections.abc import Iterable, Sequence
from typing import Any

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.inference.executors import ChunkedExecutor, Executor
from spanbert_jax.inference.model_folder import FineTuned
from spanbert_jax.tasks.features import Features
from spanbert_jax.tasks.files.reading import Example, describe_location
from spanbert_jax.tasks.packing import PackedRows, UnpackedOutputs
from spanbert_jax.tasks.protocol import NOT_FINITE, Prediction, Program
from spanbert_jax.text import special_ids


def collect_outputs(program: Program, executor: Executor, features: Features,
                    row_sets: Iterable[PackedRows]) -> dict[str, Any]:
    """A program's outputs for packed features, as `Task.decode` takes them."""
    unpacked = UnpackedOutputs(features, program.per_text)
    for rows in row_sets:
        for numbers, outputs in executor(rows):
            unpacked.add(rows, numbers, outputs)
    return program.finish(unpacked.outputs)


class Predictor:
    """A fine-tuned model that predicts on all devices of this process."""

    def __init__(self, fine_tuned: FineTuned, batch_size: int = 32):
        """Copies the parameters to the devices; `batch_size` as `ChunkedExecutor` takes it."""
        self.task, self._tokenizer = fine_tuned.task, fine_tuned.tokenizer
        self._pad = special_ids(fine_tuned.tokenizer).pad
        self._program = program = fine_tuned.task.program(fine_tuned.model, fine_tuned.tokenizer)
        self._executor = ChunkedExecutor(program.compute, program.inputs, fine_tuned.params, batch_size,
                                         program.prepare_params)

    def __call__(self, examples: Sequence[Example], issues: DataIssues, with_labels: bool = False) -> list[Prediction]:
        """The predictions of examples, whose last bits depend on which are in the same call.

        `with_labels`: the examples have labels; labels that the model does not know are counted.
        """
        features = self.task.features(examples, self._tokenizer, issues, with_labels)
        outputs = collect_outputs(self._program, self._executor, features,
                                  self.task.prediction_rows(features, self._pad))
        predictions = self.task.decode(examples, features, outputs)
        for example, prediction in zip(examples, predictions, strict=True):
            if NOT_FINITE in prediction.get("note", ""):
                issues.add(f"predictions where {NOT_FINITE}", describe_location(example))
        return predictions
