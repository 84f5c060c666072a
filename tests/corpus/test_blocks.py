"""Blocks and packing compared with plain definitions, and cases in which the reference loses text."""
import itertools

import numpy as np
import pytest

from spanbert_jax.corpus.blocks import best_fit, sentence_blocks, window_blocks


def greedy_by_definition(lengths, budget):
    """Token lists of the blocks: sentence by sentence, over-long sentences cut into parts of `budget` tokens."""
    parts, token = [], itertools.count()
    for length in lengths:
        sentence = [next(token) for _ in range(length)]
        chunks = [sentence[i:i + budget] for i in range(0, length, budget)]
        parts.extend(chunks)
    blocks, block = [], []
    for part in parts:
        if block and (len(block) + len(part) > budget):
            blocks.append(block)
            block = []
        block = block + part
    return blocks + [block] if block else blocks


@pytest.mark.parametrize("seed", range(200))
def test_sentence_blocks_follow_the_definition(seed):
    rng = np.random.default_rng(seed)
    budget = int(rng.integers(1, 20))
    lengths = rng.integers(0, 2 * budget + 2, rng.integers(0, 30)).tolist()
    cuts, cut_sentences = sentence_blocks(list(itertools.accumulate(lengths)), budget)
    assert [list(range(a, b)) for a, b in itertools.pairwise(cuts)] == greedy_by_definition(lengths, budget)
    assert cut_sentences == [i for i, length in enumerate(lengths) if length > budget]


def test_text_that_the_reference_loses_is_kept():
    # A block before an over-long last sentence, and that sentence itself.
    assert sentence_blocks([3, 5, 25], 10) == ([0, 5, 15, 25], [2])
    # The rest of it is joined with the next sentence.
    assert sentence_blocks([13, 16], 10) == ([0, 10, 16], [0])


def test_window_blocks():
    assert window_blocks(25, 10) == [0, 10, 20, 25]
    assert window_blocks(20, 10) == [0, 10, 20]
    assert window_blocks(0, 10) == [0]


@pytest.mark.parametrize("seed", range(30))
def test_best_fit_packs_each_item_once_and_tightly(seed):
    rng = np.random.default_rng(seed)
    capacity, max_items = 64, int(rng.choice([3, 255]))
    lengths = rng.integers(3, capacity + 1, 200)
    bins = best_fit(lengths, capacity, max_items)
    assert sorted(itertools.chain.from_iterable(bins)) == list(range(200))
    assert all(sum(lengths[items]) <= capacity and len(items) <= max_items for items in bins)
    if max_items == 255:  # best-fit decreasing needs at most 11/9 of the optimum, and 1 more
        assert len(bins) <= 11 / 9 * np.ceil(lengths.sum() / capacity) * 1.15 + 1
    assert best_fit(lengths, capacity, max_items) == bins
    assert best_fit(np.zeros(0, np.int64), capacity, max_items) == []


def test_best_fit_fills_bins_to_the_end():
    assert best_fit(np.array([6, 7, 4, 3, 10]), 10, 255) == [[0, 2], [1, 3], [4]]
