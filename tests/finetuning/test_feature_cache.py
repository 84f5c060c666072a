"""The feature cache: used only if nothing has changed and nothing is damaged."""
import collections
import os
import pathlib

import numpy as np
import pytest

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.finetuning import feature_cache
from spanbert_jax.finetuning.feature_cache import cached_features
from tests.tasks.test_packing import make_features


class Maker:
    def __init__(self, length: int = 5):
        self.calls, self.length = 0, length

    def __call__(self, issues):
        self.calls += 1
        issues.add("texts cut", "file:7", 3)
        return make_features([self.length, 9])


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "data" / "train.jsonl"
    file.parent.mkdir()
    file.write_text("x")
    return file


def test_features_are_made_once_and_stored_next_to_the_data(data):
    maker, issues = Maker(), [DataIssues(), DataIssues()]
    first, again = (cached_features(str(data), ["key", 1], Maker, found, maker) for found in issues)
    assert maker.calls == 1
    for name in ("example", "starts", "tokens", "token_types"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name), strict=True)
    np.testing.assert_array_equal(first.token_columns["tag"], again.token_columns["tag"])
    np.testing.assert_array_equal(first.columns["label"], again.columns["label"])
    assert issues[0] == issues[1] == DataIssues(collections.Counter({"texts cut": 3}), {"texts cut": ["file:7"]})
    assert [path.name for path in data.parent.iterdir() if path != data] == [".spanbert_features"]


def test_another_key_or_other_code_makes_new_features(data, monkeypatch):
    maker = Maker()
    for key in (["key", 1], ["key", 2], ["key", 1]):
        cached_features(str(data), key, Maker, DataIssues(), maker)
    assert maker.calls == 2
    monkeypatch.setattr(feature_cache, "_code", lambda task: "other")
    cached_features(str(data), ["key", 1], Maker, DataIssues(), maker)
    assert maker.calls == 3


@pytest.mark.parametrize("file", ["tokens.npy", "issues.json", "columns.label.npy"])
def test_damaged_features_are_made_again(data, file):
    maker = Maker()
    cached_features(str(data), "key", Maker, DataIssues(), maker)
    stored, = (data.parent / ".spanbert_features").iterdir()
    (stored / file).write_bytes((stored / file).read_bytes()[:-5])
    assert len(cached_features(str(data), "key", Maker, DataIssues(), maker)) == 2 and maker.calls == 2
    cached_features(str(data), "key", Maker, DataIssues(), maker)
    assert maker.calls == 2  # repaired


@pytest.mark.skipif(os.name != "posix", reason="a folder that cannot be written is made by POSIX permissions")
def test_the_user_cache_is_used_if_the_folder_is_not_writable(data, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (data.parent / ".spanbert_features").write_text("in the way, also of root")
    maker = Maker()
    for _ in range(2):
        cached_features(str(data), "key", Maker, DataIssues(), maker)
    assert maker.calls == 1 and list(pathlib.Path(tmp_path / "cache").rglob("tokens.npy"))
