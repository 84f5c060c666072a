"""Fine-tuned models as functions of texts."""
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues, format_issues
from spanbert_jax.inference.executors import Predictor, example_groups
from spanbert_jax.inference.model_folder import FineTuned, load_model, with_overrides
from spanbert_jax.tasks.files.reading import replace_lone_surrogates
from spanbert_jax.tasks.protocol import Prediction


class Pipeline:
    """A function from inputs to predictions: one for one input, a list for a list."""

    def __init__(self, fine_tuned: FineTuned, batch_size: int = 32):
        """Copies the parameters to the devices; `batch_size` as for `pipeline`."""
        self.task, self._predictor = fine_tuned.task, Predictor(fine_tuned, batch_size)

    def __call__(self, inputs: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] | None = None,
                 *, n_best: int | None = None, **fields: Any) -> Prediction | list[Prediction]:
        """Predicts.

        Args:
          inputs: a text, or the fields of an input by name, as in a line of the task's JSON lines files; or a list of
            these. Truncated or repaired inputs raise a warning.
          n_best: answers to list in this call, for tasks with this setting.
          **fields: of a single input.

        Returns:
          The task's predictions, without "id".

        Raises:
          UserError: a field is missing or wrong, or the task has no n_best.
        """
        task = self.task if n_best is None else with_overrides(self.task, {"n_best": n_best})
        if (inputs is None) == (not fields):
            raise UserError("give either an input or its fields by name")
        single = inputs is None or isinstance(inputs, (str, Mapping)) or not isinstance(inputs, Sequence)
        items: list[Any] = [fields if inputs is None else inputs] if single else list(inputs or ())
        issues, examples = DataIssues(), []
        for number, item in enumerate(items, 1):
            location = f"input {number}"
            if not isinstance(item, (str, Mapping)):
                raise UserError(f"{location}: {item!r:.80} is neither a text nor fields by name")
            examples.append(self.task.example(replace_lone_surrogates(item, location, issues), location, issues))
        predictions = []
        for group in example_groups(examples):
            predictions += self._predictor(group, issues, task=task)
        for line in format_issues(issues):
            warnings.warn(line, stacklevel=2)
        for prediction in predictions:
            del prediction["id"]
        return predictions[0] if single else predictions


def pipeline(task: str, model: str | os.PathLike, *, batch_size: int = 32, dtype: str = "float32",
             **settings: Any) -> Pipeline:
    """A fine-tuned model as a function of texts.

    Args:
      task: the task that the model was trained for: a name in `spanbert_jax.tasks.TASKS` with dashes, such as
        "question-answering", or another name of the task, such as "coreference-resolution".
      model: the directory that fine-tuning wrote, or the workdir that contains it.
      batch_size: rows sent to each device at once; it changes no result.
      dtype: of the computation.
      **settings: new values of overridable settings of the task, such as beams=1 for tasks that generate text, or
        n_best=3 to list three answers to a question.

    Raises:
      UserError: there is no such model, it performs another task, or an argument or setting is not allowed.
    """
    fine_tuned = load_model(model, dtype, settings)
    if task.replace("-", "_") not in (fine_tuned.name, *fine_tuned.task.other_names):
        raise UserError(f"task {task!r}: the model in {model} was trained for {fine_tuned.name.replace('_', '-')!r}")
    return Pipeline(fine_tuned, batch_size)
