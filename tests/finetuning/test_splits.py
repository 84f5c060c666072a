"""Splitting examples into parts."""
import dataclasses

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues, format_issues
from spanbert_jax.finetuning.config import as_finetuning_config, task_of
from spanbert_jax.finetuning.dataset import hold_out, read_splits
from tests.tasks.small import small_config, texts, write


@dataclasses.dataclass(frozen=True)
class Example:
    id: str
    location: str
    group: str


EXAMPLES = [Example(str(number), f"file:{number}", f"article {number % 13}") for number in range(200)]


def test_no_group_is_in_two_parts_and_every_example_in_one():
    parts = hold_out(EXAMPLES, {"dev": 0.2, "test": 0.1}, seed=0)
    assert sorted(int(example.id) for part in parts.values() for example in part) == list(range(200))
    groups = {part: {example.group for example in examples} for part, examples in parts.items()}
    assert not (groups["dev"] & groups["test"] or groups["dev"] & groups["train"] or groups["test"] & groups["train"])
    # Whole groups of 15 or 16: the nearest number of them.
    assert 45 <= len(parts["dev"]) <= 48 and 15 <= len(parts["test"]) <= 16
    assert [example.id for example in parts["train"]] == sorted((e.id for e in parts["train"]), key=int)


def test_shares_are_as_close_as_groups_allow():
    def of_sizes(*sizes):
        return [Example(f"{group} {number}", "", f"article {group}") for group, size in enumerate(sizes)
                for number in range(size)]

    for seed in range(20):  # in any order
        assert 180 <= len(hold_out(of_sizes(520, 100, 90, 95, 105, 90), {"dev": 0.2}, seed)["dev"]) <= 205
        # An article of half of the examples is passed over, also where it comes first.
        assert len(hold_out(of_sizes(520, 480), {"dev": 0.2}, seed)["dev"]) == 480  # the smallest: all are too large
        parts = hold_out(of_sizes(50, 30, 20), {"dev": 0.2, "test": 0.3}, seed)
        assert {part: len(examples) for part, examples in parts.items()} == {"train": 50, "dev": 20, "test": 30}


def test_splits_depend_only_on_seed_and_group_names():
    first, again, other = (hold_out(EXAMPLES, {"dev": 0.2}, seed) for seed in (1, 1, 2))
    assert first == again and first != other
    reversed_order = hold_out(EXAMPLES[::-1], {"dev": 0.2}, 1)
    assert {example.id for example in reversed_order["dev"]} == {example.id for example in first["dev"]}


def test_an_example_without_a_group_is_its_own_group():
    examples = [dataclasses.replace(example, group="") for example in EXAMPLES]
    parts = hold_out(examples, {"dev": 0.25}, seed=0)
    assert len(parts["dev"]) == 50


def test_parts_of_a_config(tmp_path):
    train, test = write(tmp_path / "a.jsonl", texts(60)), write(tmp_path / "b.jsonl", texts(8, seed=1))
    config = small_config("text_classification", "start", train, group="source", id="id", dev_fraction=0.2, test=test)
    typed = as_finetuning_config(config)
    parts = read_splits(typed, task_of(typed), DataIssues())
    assert {part: len(examples) for part, examples in parts.items()} == {"train": 48, "dev": 12, "test": 8}
    records = [{**record, "source": str(number < 33)} for number, record in enumerate(texts(60))]
    config.task.train, issues = write(tmp_path / "d.jsonl", records), DataIssues()
    typed = as_finetuning_config(config)
    assert len(read_splits(typed, task_of(typed), issues)["dev"]) == 27
    assert format_issues(issues) == ["examples held out as dev, 45% where config.task.dev_fraction is 20%, since "
                                     f"documents are kept whole (27): {config.task.train}"]
    config.task.dev_fraction, config.task.train = 0.9, write(tmp_path / "c.jsonl", texts(4))
    typed = as_finetuning_config(config)
    with pytest.raises(UserError, match="no example is left for train"):
        read_splits(typed, task_of(typed), DataIssues())
