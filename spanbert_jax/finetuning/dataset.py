"""The data of a run: the examples of each part, and their features packed into rows."""
import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import cache_folder
from spanbert_jax.common.identity import content_digest
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.paths import user_path
from spanbert_jax.common.settings import to_dict
from spanbert_jax.finetuning.config import FinetuningConfig, task_of
from spanbert_jax.finetuning.feature_cache import cached_features
from spanbert_jax.tasks.features import Features
from spanbert_jax.tasks.files.reading import resolve_files
from spanbert_jax.tasks.packing import PackedRows
from spanbert_jax.tasks.protocol import Example, Task, fitted_values, read_all
from spanbert_jax.text import special_ids

_SHARE_TOLERANCE = 0.1  # by which a part's share may differ from its fraction, relative to that
_LONG = 1000  # characters of a fitted value; checkpoints store only a hash of longer ones


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The data that a task is trained and evaluated on."""
    task: Task  # fitted to the training examples
    tokenizer: Tokenizer
    examples: dict[str, list[Example]]  # by part: "train", and "dev" and "test" if there are any
    rows: dict[str, PackedRows]  # by part
    issues: DataIssues  # what was repaired or left out
    identity: dict[str, Any]  # fingerprint of data and tokenizer, stored in checkpoints


def make_dataset(config: FinetuningConfig, tokenizer: Tokenizer) -> Dataset:
    """Reads and splits examples, fits the task, packs features; deterministic. Raises UserError with file and line."""
    task, issues = task_of(config), DataIssues()
    examples = read_splits(config, task, issues)
    task = task.fit(examples["train"], tokenizer)
    features = {part: _features(config, part, task, of_part, tokenizer, issues) for part, of_part in examples.items()}
    if not len(features["train"]):
        raise UserError(f"config.task.train={config.task.train!r}: none of its examples can be trained on")
    rows = task.pack(features, special_ids(tokenizer).pad, config.seed)
    return Dataset(task, tokenizer, examples, rows, issues, _identity(task, tokenizer, rows))


def read_splits(config: FinetuningConfig, task: Task, issues: DataIssues) -> dict[str, list[Example]]:
    """The examples of each part that has files or a fraction. Raises UserError if a file is wrong, or a part empty."""
    settings = config.task
    fractions = {"dev": settings.dev_fraction, "test": settings.test_fraction}
    fractions = {part: fraction for part, fraction in fractions.items() if fraction}
    examples = read_all(task, settings.train, issues)
    parts = hold_out(examples, fractions, settings.split_seed)
    for part, fraction in fractions.items():
        share = len(parts[part]) / len(examples)
        nearest = math.ceil(fraction * len(examples))  # without groups
        if abs(share - fraction) > _SHARE_TOLERANCE * fraction and len(parts[part]) not in (0, nearest):
            issues.add(f"examples held out as {part}, {share:.0%} where config.task.{part}_fraction is "
                       f"{fraction:.0%}, since documents are kept whole", settings.train, len(parts[part]))
    for part in ("dev", "test"):
        if files := getattr(settings, part):
            parts[part] = read_all(task, files, issues)
    for part, examples in parts.items():
        if not examples:
            raise UserError(f"config.task: no example is left for {part}; there are too few documents to split, so "
                            "give files for each part, or other fractions")
    return parts


def hold_out(examples: Sequence[Example], fractions: Mapping[str, float], seed: int) -> dict[str, list[Example]]:
    """Splits examples so that no group is in two parts; "train" gets the rest.

    Whole groups are taken in an order that depends only on the seed and their names, until a part has its share of the
    examples by `fractions`. A group that is much larger than what is missing is passed over. An example without a group
    is a group of its own.
    """
    by_group: dict[str, list[int]] = {}
    for number, example in enumerate(examples):
        by_group.setdefault(f"group {example.group}" if example.group else f"example {number}", []).append(number)
    left = sorted(by_group, key=lambda group: hashlib.sha256(f"{seed} {group}".encode()).digest())
    parts = {}
    for part, fraction in fractions.items():
        chosen = _groups_for(fraction * len(examples), left, by_group)
        left = [group for group in left if group not in chosen]
        parts[part] = [examples[number] for number in sorted(number for group in chosen for number in by_group[group])]
    rest = sorted(number for group in left for number in by_group[group])
    return {"train": [examples[number] for number in rest], **parts}


def _groups_for(wanted: float, groups: Sequence[str], members: Mapping[str, Sequence[int]]) -> set[str]:
    """Groups with about the wanted number of members together, taken in the given order.

    A group is passed over if that number would be exceeded by more than a tenth. At the end, the group that is nearest
    to what is missing is added if that brings the number nearer, or if there is no other.
    """
    chosen, missing = set[str](), wanted
    for group in groups:
        if missing > 0 and len(members[group]) - missing < max(1.0, _SHARE_TOLERANCE * wanted):
            chosen.add(group)
            missing -= len(members[group])
    others = [group for group in groups if group not in chosen]
    if missing > 0 and len(others) > 1:
        nearest = min(others, key=lambda group: abs(len(members[group]) - missing))
        if not chosen or abs(len(members[nearest]) - missing) < missing:
            chosen.add(nearest)
    return chosen


def _features(config: FinetuningConfig, part: str, task: Task, examples: list[Example], tokenizer: Tokenizer,
              issues: DataIssues) -> Features:
    """The features of a part, from the cache if they are there."""
    paths = getattr(config.task, part) or config.task.train
    # The locations distinguish different splits of the same files.
    key = [config.task.name, to_dict(task.settings), fitted_values(task), tokenizer.to_str(),
           [content_digest(file) for file in resolve_files(paths)], [example.location for example in examples]]
    folder = user_path(config.task.cache) if config.task.cache else cache_folder() / "features"
    return cached_features(folder, key, type(task), issues,
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
