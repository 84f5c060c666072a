"""The feature cache: used only if nothing has changed and nothing is damaged."""
import collections

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


@pytest.mark.parametrize("file", ["tokens.npy", "issues.json", "columns.label.npy"])
def test_damaged_features_are_made_again(cache, file):
    maker = Maker()
    cached_features(cache, "key", Maker, DataIssues(), maker)
    stored, = cache.iterdir()
    (stored / file).write_bytes((stored / file).read_bytes()[:-5])
    assert len(cached_features(cache, "key", Maker, DataIssues(), maker)) == 2 and maker.calls == 2
    cached_features(cache, "key", Maker, DataIssues(), maker)
    assert maker.calls == 2  # repaired


def test_without_a_writable_folder_features_are_made_each_time(cache):
    cache.parent.write_text("in the way, also of root")
    maker = Maker()
    for _ in range(2):
        assert len(cached_features(cache, "key", Maker, DataIssues(), maker)) == 2
    assert maker.calls == 2
