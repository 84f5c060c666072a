"""Scores of a fine-tuned model on files with labels."""
from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from spanbert_jax.common.directories import new_directory, require_absent_or_empty
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.inference.executors import examples_per_group
from spanbert_jax.inference.model_folder import load_model
from spanbert_jax.inference.predictor import Predictor
from spanbert_jax.tasks.protocol import read_all


def score_files(model: str | os.PathLike, inputs: str, out: str | os.PathLike | None = None, *,
                batch_size: int = 32, settings: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], DataIssues]:
    """Predicts and scores files with labels.

    Args:
      model: the directory that fine-tuning wrote, or the workdir that contains it.
      inputs: files, folders or globs, separated by commas.
      out: a new directory for the predictions, as JSON lines and in the task's official formats.
      batch_size: rows sent to each device at once.
      settings: as for `load_model`.

    Returns:
      The task's metrics, and what was repaired or left out.

    Raises:
      UserError: naming file, line and id of an error.
    """
    if out is not None:
        require_absent_or_empty(os.fspath(out))
    fine_tuned, issues = load_model(model, settings=settings), DataIssues()
    predictor, task = Predictor(fine_tuned, batch_size), fine_tuned.task
    examples, predictions, group = read_all(task, inputs, issues), [], examples_per_group()
    for first in range(0, len(examples), group):
        predictions += predictor(examples[first:first + group], issues, with_labels=True)
    if out is not None:
        lines = "".join(json.dumps(prediction, ensure_ascii=False) + "\n" for prediction in predictions)
        with new_directory(pathlib.Path(out)) as folder:
            for name, text in {"predictions.jsonl": lines, **task.files(examples, predictions)}.items():
                (folder / name).write_text(text, encoding="utf-8")
    return task.score(examples, predictions), issues
