"""The examples of a run, split into those to train on, to choose checkpoints by and to test on."""
from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.finetuning.config import FinetuningConfig
from spanbert_jax.tasks.protocol import Example, Task, read_all

PARTS = ("train", "dev", "test")


def read_splits(config: FinetuningConfig, task: Task, issues: DataIssues) -> dict[str, list[Example]]:
    """The examples of each part, as the config's files and fractions define it; parts without either are absent.

    Raises:
      UserError: a file is wrong, or a part would be empty.
    """
    settings = config.task
    fractions = {"dev": settings.dev_fraction, "test": settings.test_fraction}
    fractions = {part: fraction for part, fraction in fractions.items() if fraction}
    parts = hold_out(read_all(task, settings.train, issues), fractions, settings.split_seed)
    for part in PARTS[1:]:
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
    examples. An example without a group is a group of its own.

    Args:
      fractions: share of the examples by part.
    """
    by_group: dict[str, list[int]] = {}
    for number, example in enumerate(examples):
        by_group.setdefault(f"group {example.group}" if example.group else f"example {number}", []).append(number)
    order = sorted(by_group, key=lambda group: hashlib.sha256(f"{seed} {group}".encode()).digest())
    parts, next_group = {}, 0
    for part, fraction in fractions.items():
        chosen: list[int] = []
        while next_group < len(order) and len(chosen) < fraction * len(examples):
            chosen += by_group[order[next_group]]
            next_group += 1
        parts[part] = [examples[number] for number in sorted(chosen)]
    rest = sorted(number for group in order[next_group:] for number in by_group[group])
    return {"train": [examples[number] for number in rest], **parts}
