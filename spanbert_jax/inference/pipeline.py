"""A fine-tuned network as a function of texts."""
from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues, format_issues
from spanbert_jax.inference.generator import make_predictor
from spanbert_jax.inference.model_folder import FineTuned, load_model
from spanbert_jax.inference.predictor import group_size
from spanbert_jax.tasks.files.reading import whole
from spanbert_jax.tasks.protocol import Prediction


class Pipeline:
    """Calls of it give predictions: one for one input, a list for a list."""

    def __init__(self, fine_tuned: FineTuned, batch_size: int = 32):
        self.task, self._predictor = fine_tuned.task, make_predictor(fine_tuned, batch_size)

    def __call__(self, inputs: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] | None = None,
                 **fields: Any) -> Prediction | list[Prediction]:
        """Predicts.

        Args:
          inputs: a text, or the fields of an input by name, as they stand in a line of a JSON lines file of the task;
            or a list of these. What had to be cut or mended in them is warned of.
          **fields: of a single input.

        Returns:
          What the task decodes, without the id.

        Raises:
          UserError: when a field is missing or wrong.
        """
        if (inputs is None) == (not fields):
            raise UserError("give either an input, or its fields by name")
        one = not isinstance(inputs, (list, tuple))
        listed = [fields if inputs is None else inputs] if one else list(inputs)
        faults = DataIssues()
        examples = []
        for number, item in enumerate(listed, 1):
            where = f"input {number}"
            if not isinstance(item, (str, Mapping)):
                raise UserError(f"{where}: {item!r:.80} is neither a text nor fields by name")
            examples.append(self.task.example(whole(item, where, faults), where, faults))
        predictions = []
        for first in range(0, len(examples), group := group_size()):
            predictions += self._predictor(examples[first:first + group], faults)
        for line in format_issues(faults):
            warnings.warn(line, stacklevel=2)
        for prediction in predictions:
            del prediction["id"]
        return predictions[0] if one else predictions


def pipeline(task: str, model: str | os.PathLike, *, batch_size: int = 32, dtype: str = "float32",
             **settings: Any) -> Pipeline:
    """A fine-tuned network as a function of texts.

    Args:
      task: "question-answering", "text-classification", "relation-extraction", "token-classification",
        "summarization", "extractive-summarization", "translation": must be the task that the network was trained for.
      model: the directory that fine-tuning has written, or the workdir that holds it.
      batch_size: rows sent to each device at once; it changes no result.
      dtype: of the computation.
      **settings: of the task, in place of those that it was trained with, such as beams=1 where texts are written.

    Raises:
      UserError: when there is no such network, it does another task, or an argument or a setting cannot be so.
    """
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"dtype={dtype!r}: allowed are 'float32', 'bfloat16'")
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: it must be at least 1")
    fine_tuned = load_model(model, dtype, settings)
    if task.replace("-", "_") != fine_tuned.name:
        raise UserError(f"task {task!r}: the network in {model} was trained for {fine_tuned.name.replace('_', '-')!r}")
    return Pipeline(fine_tuned, batch_size)
