"""The examples of a run: read, and divided into what is trained on, what chooses and what only measures."""
from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.finetuning.config import FinetuningConfig
from spanbert_jax.tasks.protocol import Example, Task, read_all

PARTS = ("train", "dev", "test")


def read_parts(config: FinetuningConfig, task: Task, faults: DataIssues) -> dict[str, list[Example]]:
    """The examples of each of `PARTS` that there is, as the config's files and fractions say.

    Raises:
      UserError: when a file is wrong, or a part would be empty.
    """
    settings = config.task
    fractions = {part: fraction for part in PARTS[1:] if (fraction := getattr(settings, f"{part}_fraction"))}
    parts = hold_back(read_all(task, settings.train, faults), fractions, settings.split_seed)
    for part in PARTS[1:]:
        if files := getattr(settings, part):
            parts[part] = read_all(task, files, faults)
    for part, examples in parts.items():
        if not examples:
            raise UserError(f"config.task: no example is left for {part}; there are too few documents to divide, so "
                            "give files for each part, or other fractions")
    return parts


def hold_back(examples: Sequence[Example], fractions: Mapping[str, float], seed: int) -> dict[str, list[Example]]:
    """Divides examples so that no group is in two parts; what is not held back is "train".

    Whole groups are taken in an order that the seed and their names alone decide, until a part has its share of the
    examples. An example without a group is one of its own.

    Args:
      fractions: of the examples, by name of part.
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
