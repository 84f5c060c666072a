"""The data of a run: the examples of each part, and their features packed into rows."""
from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.settings import to_dict
from spanbert_jax.finetuning.config import FinetuningConfig, task_of
from spanbert_jax.finetuning.feature_cache import cached_features
from spanbert_jax.finetuning.splits import read_splits
from spanbert_jax.tasks.features import Features
from spanbert_jax.tasks.files.reading import file_fingerprints, resolve_files
from spanbert_jax.tasks.packing import PackedRows
from spanbert_jax.tasks.protocol import Example, Task, fitted_values
from spanbert_jax.text import special_ids

_LONG = 1000  # characters of a fitted value; checkpoints store only a hash of longer ones


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The data that a task is trained and evaluated on.

    Attributes:
      task: fitted to the training examples.
      examples, rows: by part: "train", and "dev" and "test" if there are any.
      issues: what was repaired or left out.
      identity: fingerprint of data and tokenizer, stored in checkpoints.
    """
    task: Task
    tokenizer: Tokenizer
    examples: dict[str, list[Example]]
    rows: dict[str, PackedRows]
    issues: DataIssues
    identity: dict[str, Any]


def make_dataset(config: FinetuningConfig, tokenizer: Tokenizer) -> Dataset:
    """Reads and splits the examples, fits the task and packs features into rows; deterministic.

    Raises:
      UserError: naming file, line and id of an error.
    """
    task, issues = task_of(config), DataIssues()
    examples = read_splits(config, task, issues)
    task = task.fit(examples["train"], tokenizer)
    features = {part: _features(config, part, task, of_part, tokenizer, issues) for part, of_part in examples.items()}
    if not len(features["train"]):
        raise UserError(f"config.task.train={config.task.train!r}: none of its examples can be trained on")
    rows = task.pack(features, special_ids(tokenizer).pad, config.seed)
    return Dataset(task, tokenizer, examples, rows, issues, _identity(task, tokenizer, rows))


def _features(config: FinetuningConfig, part: str, task: Task, examples: list[Example], tokenizer: Tokenizer,
              issues: DataIssues) -> Features:
    """The features of a part, from the cache if they are there."""
    paths = getattr(config.task, part) or config.task.train
    # The locations distinguish different splits of the same files.
    key = [config.task.name, to_dict(task.settings), fitted_values(task), tokenizer.to_str(), file_fingerprints(paths),
           [example.location for example in examples]]
    return cached_features(resolve_files(paths)[0], key, type(task), issues,
                           lambda found: task.features(examples, tokenizer, found))


def _identity(task: Task, tokenizer: Tokenizer, rows: dict[str, PackedRows]) -> dict[str, Any]:
    fitted = {name: value if len(str(value)) < _LONG else hashlib.sha256(str(value).encode()).hexdigest()
              for name, value in fitted_values(task).items()}
    return {"tokenizer": hashlib.sha256(tokenizer.to_str().encode()).hexdigest(), "facts": fitted,
            "length": rows["train"].length, "features": {part: _digest(packed.features)
                                                         for part, packed in rows.items()}}


def _digest(features: Features) -> str:
    """A hash of features."""
    digest = hashlib.sha256()
    labels = (features.labels.starts, features.labels.tokens) if features.labels else ()
    for array in (features.starts, features.tokens, *features.columns.values(), *features.token_columns.values(),
                  *labels):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
