"""Sources and targets in rows of two lengths: every token once, in order, and full rows."""
import numpy as np
import pytest

from spanbert_jax.tasks.features import FeatureBuilder
from spanbert_jax.tasks.packing import FULL
from spanbert_jax.tasks.packing_pairs import best_fit_pairs, pack_pairs, row_lengths

START, END, PAD = 1, 2, 0


def make_features(sources, targets):
    features, random = FeatureBuilder(), np.random.default_rng(0)
    for number, (source, target) in enumerate(zip(sources, targets, strict=True)):
        labels = [START, *random.integers(3, 100, target - 1), END]
        features.add(number, random.integers(3, 100, source), [0] * source, labels=labels)
    return features.build()


def texts(count, seed, longest=40, ratio=1.0):
    random = np.random.default_rng(seed)
    sources = random.integers(3, longest + 1, count)
    return sources, np.clip((sources * ratio * random.uniform(0.7, 1.4, count)).astype(int), 1, 50)


def test_each_pair_is_in_one_row_with_its_tokens_in_order():
    features = make_features(*texts(200, 0))
    rows = pack_pairs(features, 64, 64, PAD, seed=3)
    batch, seen = rows.rows(np.arange(len(rows))), []
    for row in range(len(rows)):
        for slot in range(1, batch["segments"][row].max() + 1):
            (feature,) = [number for number in np.flatnonzero(rows.row == row) if rows.slot[number] == slot - 1]
            seen.append(feature)
            labels = features.labels[feature]
            np.testing.assert_array_equal(batch["tokens"][row][batch["segments"][row] == slot],
                                          features.tokens[features.token_slice(feature)])
            at = batch["label_segments"][row] == slot
            np.testing.assert_array_equal(batch["previous"][row][at], labels[:-1])
            np.testing.assert_array_equal(batch["labels"][row][at], labels[1:])
    assert sorted(seen) == list(range(200))
    assert (batch["labels"][batch["label_segments"] == 0] == PAD).all()
    padding = rows.rows(np.array([-1]))
    assert not any(padding[name].any() for name in ("segments", "label_segments", "weights"))


@pytest.mark.parametrize("ratio", [0.25, 1.0, 1.5])
def test_rows_are_full(ratio):
    features = make_features(*texts(600, 1, ratio=ratio))
    length, label_length = row_lengths([features])
    assert length % 32 == 0 and label_length % 16 == 0
    assert pack_pairs(features, length, label_length, PAD, seed=0).filled >= FULL


def test_no_bin_exceeds_its_capacity():
    random = np.random.default_rng(2)
    first, second = random.integers(1, 33, 3000), random.integers(1, 17, 3000)
    bins = best_fit_pairs(first, second, 32, 16)
    assert sorted(item for items in bins for item in items) == list(range(3000))
    for items in bins:
        assert first[items].sum() <= 32 and second[items].sum() <= 16
    assert bins == sorted(bins) and all(items == sorted(items) for items in bins)


def test_rows_fit_the_longest_text_of_any_part():
    parts = [make_features([5] * 50, [5] * 50), make_features([60], [30])]
    length, label_length = row_lengths(parts)
    assert length >= 60 and label_length >= 30
    for features in parts:
        assert len(pack_pairs(features, length, label_length, PAD, seed=0))
