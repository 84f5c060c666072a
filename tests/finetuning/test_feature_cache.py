"""The feature cache: used only if nothing has changed and nothing is damaged."""
import collections
import itertools
import json
import os
import pathlib

import numpy as np
import pytest

from spanbert_jax.common import identity
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.finetuning import feature_cache
from spanbert_jax.finetuning.config import as_finetuning_config
from spanbert_jax.finetuning.dataset import make_dataset
from spanbert_jax.finetuning.feature_cache import cached_features
from spanbert_jax.interop import load_tokenizer
from tests.common.test_directories import kill
from tests.damage import flip_bit
from tests.tasks.small import MAKERS, small_config, write
from tests.tasks.test_packing import make_features


class Maker:
    def __init__(self, length: int = 5):
        self.calls, self.length = 0, length

    def __call__(self, issues):
        self.calls += 1
        issues.add("texts cut", "file:7", 3)
        return make_features([self.length, 9])


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "features"


def test_features_are_made_once(cache):
    maker, issues = Maker(), [DataIssues(), DataIssues()]
    first, again = (cached_features(cache, ["key", 1], Maker, found, maker) for found in issues)
    assert maker.calls == 1
    for name in ("example", "starts", "tokens", "token_types"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name), strict=True)
    np.testing.assert_array_equal(first.token_columns["tag"], again.token_columns["tag"])
    np.testing.assert_array_equal(first.columns["label"], again.columns["label"])
    assert issues[0] == issues[1] == DataIssues(collections.Counter({"texts cut": 3}), {"texts cut": ["file:7"]})
    assert len(list(cache.iterdir())) == 1


def test_another_key_or_other_code_makes_new_features(cache, monkeypatch):
    maker = Maker()
    for key in (["key", 1], ["key", 2], ["key", 1]):
        cached_features(cache, key, Maker, DataIssues(), maker)
    assert maker.calls == 2
    monkeypatch.setattr(feature_cache, "_code", lambda task: "other")
    cached_features(cache, ["key", 1], Maker, DataIssues(), maker)
    assert maker.calls == 3


@pytest.mark.parametrize("bit", [None, 0, 700])
@pytest.mark.parametrize("file", ["tokens.npy", "issues.json", "columns.label.npy"])
def test_damaged_features_are_made_again(cache, file, bit):
    maker = Maker()
    cached_features(cache, "key", Maker, DataIssues(), maker)
    stored, = cache.iterdir()
    if bit is None:
        (stored / file).write_bytes((stored / file).read_bytes()[:-5])
    else:
        flip_bit(stored / file, bit)
    assert len(cached_features(cache, "key", Maker, DataIssues(), maker)) == 2 and maker.calls == 2
    cached_features(cache, "key", Maker, DataIssues(), maker)
    assert maker.calls == 2  # repaired


def test_labels_exchanged_under_the_same_size_and_time_are_noticed(start, tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "_SETTLED_SECONDS", 0.0)  # digests of files are kept at once
    records = MAKERS["text_classification"](24)
    data = pathlib.Path(write(tmp_path / "data.jsonl", records))
    config = as_finetuning_config(small_config("text_classification", start, str(data)))
    tokenizer, status = load_tokenizer(start), data.stat()
    pairs = [(a, b) for a, b in itertools.combinations(range(24), 2) if records[a]["label"] != records[b]["label"]]
    for one, other in pairs[::len(pairs) // 20][:20]:
        changed = [dict(record) for record in records]
        changed[one]["label"], changed[other]["label"] = records[other]["label"], records[one]["label"]
        data.write_text("".join(f"{json.dumps(record)}\n" for record in changed))
        os.utime(data, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert data.stat().st_size == status.st_size
        dataset = make_dataset(config, tokenizer)
        found = [dataset.task.labels[label] for label in dataset.rows["train"].features.columns["label"]]
        assert found == [record["label"] for record in changed]
    monkeypatch.setattr(type(dataset.task), "features", None)
    os.utime(data, (1, 1))
    make_dataset(config, tokenizer)  # only touched: the features are there


def test_what_a_killed_run_left_is_removed(cache):
    cache.mkdir(parents=True)
    kill(cache, "features")
    cached_features(cache, "key", Maker, DataIssues(), Maker())
    assert len(list(cache.iterdir())) == 1


def test_without_a_writable_folder_features_are_made_each_time(cache):
    cache.parent.write_text("in the way, also of root")
    maker = Maker()
    for _ in range(2):
        assert len(cached_features(cache, "key", Maker, DataIssues(), maker)) == 2
    assert maker.calls == 2
