"""Schemes, mixtures and rows with several blocks, compared with the sequential sampler of sampler.py."""
import dataclasses
import functools
import random

import jax
import numpy as np
import pytest
from scipy import stats

from spanbert_jax.masking import MaskedRows, Masker, MaskingSettings, make_masker
from tests.masking import sampler, statistics

# Overall significance, divided by the number of comparisons: the probability that a correct masker fails.
SIGNIFICANCE = 1e-3
COUNT = 4000
PLAIN = MaskingSettings()
ALWAYS = MaskingSettings(scheme="annotated", annotated_rate=1.0, rate=0.5)
CASES = {
    "annotated": ("annotated", PLAIN),
    "annotated_words": ("annotated", dataclasses.replace(PLAIN, span_upper=1, rate=0.3)),
    "annotated_always": ("annotated", ALWAYS),
    "high_rate": ("geometric", dataclasses.replace(PLAIN, rate=0.6, span_lower=2, span_upper=6, geometric_p=0.4)),
    "whole_word": ("whole_word", dataclasses.replace(PLAIN, rate=0.4)),
}
# Every test masks COUNT rows of this shape, so that they share maskers: compiling one takes longer than using it.
LENGTH, MAX_BLOCKS = 100, 4
# Sizes of the blocks and where they start: [CLS] a [SEP] [CLS] b [SEP] [CLS] c [SEP], and [CLS] a [SEP] b [SEP].
LAYOUTS = {"packed": ((30, 3, 61), (1, 33, 38)), "pairs": ((25, 40), (1, 27))}
COMPARISONS = 5 * (len(CASES) + 1 + 2 * (3 + 2))


@functools.cache
def _masker(settings: MaskingSettings) -> Masker:
    return make_masker(settings, length=LENGTH, max_blocks=MAX_BLOCKS, special=sampler.SPECIAL,
                       unigram=sampler.UNIGRAM)


def _mask(settings: MaskingSettings, rows: dict[str, np.ndarray]) -> tuple[np.ndarray, MaskedRows]:
    padded = {name: np.pad(array, ((0, 0), (0, LENGTH - array.shape[1]))) for name, array in rows.items()}
    out = jax.device_get(_masker(settings)(jax.random.split(jax.random.key(0), COUNT), padded))
    masks = np.zeros((COUNT, LENGTH), bool)
    block, slot = np.nonzero(out.weights)
    masks[block, out.positions[block, slot]] = True
    return masks, out


def _assert_same_distribution(ours: np.ndarray, blocks: sampler.Blocks, scheme: str, settings: MaskingSettings) -> None:
    theirs = sampler.sample_masks(random.Random(3), blocks, scheme, settings)

    def counts(masks: np.ndarray) -> dict[str, np.ndarray]:
        marks = blocks.annotations
        unit_starts = (marks == 1) & masks
        return {**statistics.mask_counts(masks, blocks.word_starts),
                "annotated": np.stack([unit_starts.sum(1), (masks & (marks == 2)).sum(1)], axis=1)}

    for name, x in counts(ours).items():
        y = counts(theirs)[name]
        p = statistics.equal_distribution_p_value(x, y.mean(0), len(y), y)
        assert p > SIGNIFICANCE / COMPARISONS, (name, p, x.mean(0), y.mean(0))


@pytest.mark.parametrize("case", CASES)
def test_scheme_has_the_distribution_of_the_sequential_rules(case: str) -> None:
    scheme, settings = CASES[case]
    blocks = sampler.random_blocks(np.random.default_rng(4), COUNT, 50, 0.7, unit_fraction=0.1)
    masks, _ = _mask(dataclasses.replace(settings, scheme=scheme), sampler.single_rows(blocks))
    _assert_same_distribution(masks[:, 1:51], blocks, scheme, settings)


@pytest.mark.parametrize("scheme", ["geometric", "annotated"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_block_of_a_row_is_masked_as_if_alone(layout: str, scheme: str) -> None:
    lengths, starts = LAYOUTS[layout]
    rng = np.random.default_rng(5)
    parts = [sampler.random_blocks(rng, COUNT, length, 0.8, unit_fraction=0.1) for length in lengths]
    rows = sampler.packed_rows(parts) if layout == "packed" else sampler.pair_rows(*parts)
    masks, _ = _mask(dataclasses.replace(PLAIN, scheme=scheme), rows)
    for part, start, length in zip(parts, starts, lengths):
        _assert_same_distribution(masks[:, start:start + length], part, scheme, PLAIN)


def test_mixture_draws_one_scheme_for_each_block() -> None:
    rng = np.random.default_rng(6)
    parts = [sampler.random_blocks(rng, COUNT, 40, 0.8) for _ in range(2)]
    settings = MaskingSettings(scheme="0.7*whole_word+0.3*token", endpoints="internal")
    _, out = _mask(settings, sampler.packed_rows(parts))
    # With internal endpoints a block of a span scheme has targets at all its 6 slots, one of `token` at none.
    first, second = out.boundary_weights[:, :6], out.boundary_weights[:, 6:12]
    assert np.all(first == first[:, :1]) and np.all(second == second[:, :1])
    for seen, share in [(first[:, 0], 0.7), (second[:, 0], 0.7), (first[:, 0] * second[:, 0], 0.7**2)]:
        assert stats.binomtest(int(seen.sum()), COUNT, share).pvalue > SIGNIFICANCE / 3


def test_adjacent_units_stay_separate() -> None:
    blocks = sampler.random_blocks(np.random.default_rng(7), COUNT, 6, 1.0)
    blocks.annotations[:] = [1, 2, 2, 1, 2, 2]
    masks, _ = _mask(ALWAYS, sampler.single_rows(blocks))  # 3 of 6 tokens
    first, second = masks[:, 1:4].all(1), masks[:, 4:7].all(1)
    assert np.all(first ^ second)
    assert stats.binomtest(int(first.sum()), COUNT, 0.5).pvalue > SIGNIFICANCE


def test_unit_cut_by_the_start_of_its_block_is_a_unit() -> None:
    blocks = sampler.random_blocks(np.random.default_rng(8), COUNT, 20, 1.0)
    blocks.annotations[:, :3] = 2
    masks, _ = _mask(ALWAYS, sampler.single_rows(blocks))
    assert masks[:, 1:4].all()


def test_annotated_without_units_masks_spans() -> None:
    blocks = sampler.random_blocks(np.random.default_rng(9), COUNT, 50, 0.7)
    masks, _ = _mask(ALWAYS, sampler.single_rows(blocks))
    _assert_same_distribution(masks[:, 1:51], blocks, "geometric", ALWAYS)


def test_a_position_beyond_the_last_span_position_has_no_boundary_target() -> None:
    """Golden example of a span of 18 tokens with 15 positions: 15 boundary targets, 18 masked-token targets."""
    blocks = sampler.random_blocks(np.random.default_rng(10), COUNT, 36, 1.0)
    blocks.annotations[:, 8:26] = [1] + [2] * 17
    _, out = _mask(ALWAYS, sampler.single_rows(blocks))
    assert np.all(out.weights.sum(1) == 18) and np.all(out.boundary_weights.sum(1) == 15)
    used = out.weights > 0
    assert set(out.left[used]) == {8} and set(out.right[used]) == {27}
