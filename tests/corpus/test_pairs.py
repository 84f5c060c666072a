"""Pairs: invariants of every pair, and the distributions of labels and random documents."""
import numpy as np
import pytest

from spanbert_jax.corpus.pairs import NEXT, RANDOM, pair_blocks


def random_documents(rng, count, budget):
    documents, total = [], 0
    for _ in range(count):
        lengths = rng.integers(1, budget + 1, rng.integers(1, 12))
        bounds = [total, *(total + np.cumsum(lengths)).tolist()]
        total = bounds[-1]
        documents.append(bounds)
    return documents, total


def owner(documents, span):
    return next(d for d, bounds in enumerate(documents) if bounds[0] <= span[0] and span[1] <= bounds[-1])


@pytest.mark.parametrize("seed", range(60))
def test_invariants_of_every_pair(seed):
    rng = np.random.default_rng(seed)
    budget = int(rng.integers(8, 40))
    documents, total = random_documents(rng, int(rng.integers(2, 8)), budget)
    pairs, dropped = pair_blocks(documents, budget, 0.2, rng)
    covered = np.zeros(total, int)
    for pair in pairs:
        a, b = pair.first, pair.second
        assert a[1] > a[0] and b[1] > b[0] and a[1] - a[0] + b[1] - b[0] <= budget
        assert (owner(documents, a) == owner(documents, b)) == (pair.label == NEXT)
        covered[a[0]:a[1]] += 1
        if pair.label == NEXT:
            assert a[1] <= b[0]
            covered[b[0]:b[1]] += 1
    assert covered.max() <= 1  # each token is used at most once as itself
    assert (covered == 0).sum() <= dropped  # and lost only by truncation


def test_a_single_document_gives_only_next_pairs():
    pairs, dropped = pair_blocks([[0, 4, 9, 15, 22]], 10, 0.0, np.random.default_rng(0))
    assert {pair.label for pair in pairs} == {NEXT} and dropped >= 0
    pairs, _ = pair_blocks([[0, 5]], 10, 0.0, np.random.default_rng(0))
    assert [(pair.first, pair.second) for pair in pairs] == [((0, 3), (3, 5))]
    assert pair_blocks([[0]], 10, 0.0, np.random.default_rng(0)) == ([], 0)


def test_random_documents_are_uniform_over_all_others_and_about_half_of_the_pairs():
    documents = [list(range(100 * d, 100 * d + 41, 4)) for d in range(5)]
    drawn, labels = np.zeros((5, 5), int), []
    for seed in range(400):
        for pair in pair_blocks(documents, 40, 0.0, np.random.default_rng(seed))[0]:
            labels.append(pair.label)
            if pair.label == RANDOM:
                drawn[pair.first[0] // 100, pair.second[0] // 100] += 1
    others = drawn[~np.eye(5, dtype=bool)].reshape(5, 4)
    assert np.trace(drawn) == 0
    expected = others.sum(1, keepdims=True) / 4
    chi_square = ((others - expected) ** 2 / expected).sum()
    assert chi_square < 37.7  # 15 degrees of freedom, significance 0.001; the last document is drawn like any other
    assert 0.48 < np.mean(labels) < 0.75  # above one half, because the pair of a single last sentence is always random


def test_truncation_shortens_the_longer_text():
    documents = [[0, 3, 40], [100, 130, 160]]
    for seed in range(50):
        for pair in pair_blocks(documents, 20, 0.0, np.random.default_rng(seed))[0]:
            a, b = pair.first[1] - pair.first[0], pair.second[1] - pair.second[0]
            assert a + b <= 20
            if a + b == 20 and pair.first[0] >= 100:  # both were longer than half of the budget: both are cut to half
                assert (a, b) == (10, 10) or pair.label == RANDOM
