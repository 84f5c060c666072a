"""Features kept beside the data that they were made of, so that a second run need not make them again."""
from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import tokenizers

import spanbert_jax.tasks
import spanbert_jax.text
from spanbert_jax.common.cache import cache_folder
from spanbert_jax.common.directories import replace_directory
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.features import Features, Texts

_FOLDER = ".spanbert_features"
_FAULTS = "faults.json"


def cached_features(data: str, key: Any, faults: DataIssues, make: Callable[[DataIssues], Features]) -> Features:
    """The features of a key from the disk, or made and left there for the next time, as far as the disk takes them.

    They lie in a hidden folder beside the data, or in the user's cache folder where that cannot be written.

    Args:
      data: a file that they are made of.
      key: all that decides them besides the code of the tasks, as JSON holds it.
      faults: gets those of making them, whether they are made now or not.
    """
    name = hashlib.sha256(json.dumps([_code(), key], sort_keys=True).encode()).hexdigest()[:24]
    folders = [pathlib.Path(data).absolute().parent / _FOLDER, cache_folder() / "features"]
    for folder in folders:
        # Not there, or damaged.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, EOFError, IndexError):
            return _read(folder / name, faults)
    found = DataIssues()
    features = make(found)
    faults.merge(found)
    for folder in folders:
        with contextlib.suppress(OSError):
            _write(folder / name, features, found)
            break
    return features


def _code() -> str:
    """What the code of the tasks and their tokenizer is: features made by another are not taken."""
    digest = hashlib.sha256(tokenizers.__version__.encode())
    for room in (spanbert_jax.tasks, spanbert_jax.text):
        for file in sorted(pathlib.Path(room.__file__).parent.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _read(folder: pathlib.Path, faults: DataIssues) -> Features:
    stored = json.loads((folder / _FAULTS).read_text(encoding="utf-8"))

    def array(*parts: str) -> np.ndarray:
        return np.load(folder / f"{'.'.join(parts)}.npy", mmap_mode="r", allow_pickle=False)

    features = Features(
        *(array(field) for field in ("example", "starts", "tokens", "token_types")),
        **{kind: {name: array(kind, name) for name in stored[kind]} for kind in ("columns", "pieces")},
        labels=Texts(array("labels", "starts"), array("labels", "tokens")) if stored["labels"] else None)
    for texts in filter(None, (features, features.labels)):
        if len(texts.tokens) != texts.starts[-1]:
            raise ValueError("cut short")
    for fault, count in stored["counts"].items():
        for place in stored["places"][fault]:
            faults.add(fault, place, 0)
        faults.counts[fault] += count
    return features


def _write(folder: pathlib.Path, features: Features, faults: DataIssues) -> None:
    """Writes features so that they are never seen half-written."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
        for field in dataclasses.fields(features):
            value = getattr(features, field.name)
            arrays = value if isinstance(value, dict) else vars(value) if isinstance(value, Texts) else {"": value}
            for name, array in arrays.items() if value is not None else ():
                np.save(partial / f"{'.'.join(filter(None, (field.name, name)))}.npy", array)
        (partial / _FAULTS).write_text(json.dumps({
            "columns": list(features.columns), "pieces": list(features.pieces), "labels": features.labels is not None,
            "counts": faults.counts, "places": faults.places}), encoding="utf-8")
        replace_directory(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
