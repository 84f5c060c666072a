"""How good a fine-tuned network is on labelled files."""
from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from spanbert_jax.common.directories import new_directory, require_absent_or_empty
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.inference.generator import make_predictor
from spanbert_jax.inference.model_folder import load_model
from spanbert_jax.inference.predictor import group_size
from spanbert_jax.tasks.protocol import read_all


def score_files(model: str | os.PathLike, inputs: str, out: str | os.PathLike | None = None, *,
                batch_size: int = 32, settings: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], DataIssues]:
    """Predicts for labelled files, and scores.

    Args:
      model: the directory that fine-tuning has written, or the workdir that holds it.
      inputs: files, folders or globs, separated by commas.
      out: a directory to be made for the predictions, as JSON lines and in the task's official formats.
      batch_size: rows sent to each device at once.
      settings: as `load_model` has them.

    Returns:
      The task's figures, and what was mended or left out.

    Raises:
      UserError: naming file, line and id.
    """
    if out is not None:
        require_absent_or_empty(out)
    fine_tuned, faults = load_model(model, settings=settings), DataIssues()
    predictor, task = make_predictor(fine_tuned, batch_size), fine_tuned.task
    examples, predictions, group = read_all(task, inputs, faults), [], group_size()
    for first in range(0, len(examples), group):
        predictions += predictor(examples[first:first + group], faults, labelled=True)
    if out is not None:
        lines = "".join(json.dumps(prediction, ensure_ascii=False) + "\n" for prediction in predictions)
        with new_directory(pathlib.Path(out)) as folder:
            for name, text in {"predictions.jsonl": lines, **task.files(examples, predictions)}.items():
                (folder / name).write_text(text, encoding="utf-8")
    return task.score(examples, predictions), faults
