"""The data of a run: the parts' examples, and their features packed into rows."""
from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.finetuning.config import FinetuningConfig, task_of
from spanbert_jax.finetuning.feature_cache import cached_features
from spanbert_jax.finetuning.parts import read_parts
from spanbert_jax.tasks.features import Features
from spanbert_jax.tasks.files.reading import files_of, stamps
from spanbert_jax.tasks.packing import PackedRows, most_texts, pack, row_length
from spanbert_jax.tasks.packing_pairs import pack_pairs, row_lengths
from spanbert_jax.tasks.protocol import Example, Task
from spanbert_jax.tasks.seq2seq import Seq2SeqTask
from spanbert_jax.text import special_ids

_LONG = 1000  # characters of a fact; checkpoints remember only that a longer one is the same


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What a run of a task learns from and is measured by.

    Attributes:
      task: with its facts learned.
      examples, rows: by part; "train", and "dev" and "test" where there are any.
      faults: what had to be mended or left out.
      identity: what the rows are; a checkpoint remembers it.
    """
    task: Task
    tokenizer: Tokenizer
    examples: dict[str, list[Example]]
    rows: dict[str, PackedRows]
    faults: DataIssues
    identity: dict[str, Any]


def _digest(features: Features) -> str:
    """What tells features from others."""
    digest = hashlib.sha256()
    labels = (features.labels.starts, features.labels.tokens) if features.labels else ()
    for array in (features.starts, features.tokens, *features.columns.values(), *features.pieces.values(), *labels):
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def make_dataset(config: FinetuningConfig, tokenizer: Tokenizer) -> Dataset:
    """Reads, divides, and makes features and rows; the same whenever and wherever it is done.

    Raises:
      UserError: naming file, line and id of what is wrong.
    """
    task, faults = task_of(config), DataIssues()
    examples = read_parts(config, task, faults)
    task.learn(examples["train"], tokenizer)
    name, text, facts = config.task.name, tokenizer.to_str(), dict(task.facts)
    made: dict[str, Features] = {}
    for part, of_part in examples.items():
        paths = getattr(config.task, part) or config.task.train
        # Which of the files' examples these are, too.
        key = [name, task.settings, facts, text, stamps(paths), [example.where for example in of_part]]
        made[part] = cached_features(files_of(paths)[0], key, faults,
                                     lambda found, chosen=of_part: task.features(chosen, tokenizer, found))
    if not len(made["train"]):
        raise UserError(f"config.task.train={config.task.train!r}: none of its examples can be trained on")
    rows = _rows(task, made, special_ids(tokenizer).pad, config.seed)
    short = {name: value if len(str(value)) < _LONG else hashlib.sha256(str(value).encode()).hexdigest()
             for name, value in facts.items()}
    identity = {"tokenizer": hashlib.sha256(text.encode()).hexdigest(), "facts": short, "length": rows["train"].length,
                "features": {part: _digest(of_part.features) for part, of_part in rows.items()}}
    return Dataset(task, tokenizer, examples, rows, faults, identity)


def _rows(task: Task, made: dict[str, Features], pad: int, seed: int) -> dict[str, PackedRows]:
    """Rows of one shape for all parts, so that each program is compiled once."""
    if isinstance(task, Seq2SeqTask):
        lengths = row_lengths(list(made.values()))
        return {part: pack_pairs(features, *lengths, pad, seed) for part, features in made.items()}
    lengths = np.concatenate([features.lengths for features in made.values()])
    length = row_length(lengths)
    return {part: pack(features, length, pad, task.targets, seed, most_texts(lengths, length))
            for part, features in made.items()}
