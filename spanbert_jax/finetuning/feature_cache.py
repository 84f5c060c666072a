"""A cache of features on disk."""
import collections
import contextlib
import dataclasses
import hashlib
import inspect
import json
import pathlib
from collections.abc import Callable
from typing import Any, TypedDict

import numpy as np
import tokenizers

import spanbert_jax.tasks
import spanbert_jax.text
from spanbert_jax.common.directories import partial_directory, replace_directory
from spanbert_jax.common.identity import code_digest
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.json_files import read_json
from spanbert_jax.common.manifest import folder_difference, seal_folder
from spanbert_jax.tasks.features import Features, TokenSequences

_ISSUES = "issues.json"


class _Stored(TypedDict):
    """What `_write` writes besides arrays."""
    columns: list[str]
    token_columns: list[str]
    labels: bool
    counts: dict[str, int]
    places: dict[str, list[str]]


def cached_features(folder: pathlib.Path, key: Any, task: type, issues: DataIssues,
                    make: Callable[[DataIssues], Features]) -> Features:
    """The features for a key from the cache, or from `make`, stored for the next time if the disk allows it.

    Args:
      folder: of the cache.
      key: all that determines the features besides code; JSON-able.
      task: class of the task, whose code is part of the key.
      issues: gets the issues of making the features, also if they come from the cache.
      make: makes the features and counts issues.
    """
    name = hashlib.sha256(json.dumps([_code(task), key], sort_keys=True).encode()).hexdigest()[:24]
    with contextlib.suppress(OSError):  # such as an entry that another process is replacing
        if not folder_difference(folder / name):  # otherwise it is missing or damaged
            return _read(folder / name, issues)
    found = DataIssues()
    features = make(found)
    issues.merge(found)
    with contextlib.suppress(OSError):
        _write(folder / name, features, found)
    return features


def _code(task: type) -> str:
    """A hash of the code of tasks, tokenization and this cache: features made by other code are not used."""
    digest = hashlib.sha256(tokenizers.__version__.encode())
    for package in (spanbert_jax.tasks, spanbert_jax.text):
        digest.update(code_digest(pathlib.Path(package.__path__[0])).encode())
    digest.update(code_digest(pathlib.Path(__file__)).encode())
    with contextlib.suppress(OSError, TypeError):  # of a plugin; without a file in an interactive session
        digest.update(code_digest(pathlib.Path(inspect.getfile(task))).encode())
    return digest.hexdigest()


def _read(folder: pathlib.Path, issues: DataIssues) -> Features:
    stored = read_json(folder / _ISSUES, _Stored)

    def array(name: str) -> np.ndarray:
        return np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    def sequences(prefix: str = "") -> tuple[np.ndarray, np.ndarray]:
        return array(f"{prefix}starts"), array(f"{prefix}tokens")

    labels = TokenSequences(*sequences("labels.")) if stored["labels"] else None
    columns, token_columns = ({name: array(f"{kind}.{name}") for name in names}
                              for kind, names in (("columns", stored["columns"]),
                                                  ("token_columns", stored["token_columns"])))
    features = Features(array("example"), *sequences(), array("token_types"), columns, token_columns, labels)
    issues.merge(DataIssues(collections.Counter(stored["counts"]), stored["places"]))
    return features


def _write(folder: pathlib.Path, features: Features, issues: DataIssues) -> None:
    """Writes features atomically."""
    with partial_directory(folder.parent, "features") as partial:
        for field in dataclasses.fields(features):
            value = getattr(features, field.name)
            labels = vars(value) if isinstance(value, TokenSequences) else {"": value}
            arrays = value if isinstance(value, dict) else labels
            for name, array in arrays.items() if value is not None else ():
                np.save(partial / f"{'.'.join(filter(None, (field.name, name)))}.npy", array)
        (partial / _ISSUES).write_text(json.dumps({
            "columns": list(features.columns), "token_columns": list(features.token_columns),
            "labels": features.labels is not None, "counts": issues.counts, "places": issues.places}), encoding="utf-8")
        seal_folder(partial)
        replace_directory(partial, folder)
