"""The masker compared with distributions measured on the reference implementation."""
import functools
import json
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from spanbert_jax.masking import MaskingSettings, make_masker
from tests.masking import sampler, statistics
from tests.paths import CONFORMANCE, needs_conformance

pytestmark = needs_conformance

# Overall significance: the chance that any comparison of a correct masker fails. Divided by the number of comparisons.
SIGNIFICANCE = 1e-3
STATISTICS = ("spans", "lengths", "cuts", "at_word_start", "token_outcomes", "span_outcomes", "boundary_rows",
              "boundary_targets", "positions")
PATH = CONFORMANCE / "masking_statistics.json"
CASES = {case["name"]: case for case in json.loads(PATH.read_text())["cases"]} if PATH.exists() else {}
REPLACEMENT = {"span": "span", "word_piece": "token"}


def _settings_of(settings: dict) -> MaskingSettings:
    return MaskingSettings(
        scheme={"pair_span": "geometric", "random": "token"}[settings["scheme"]], rate=settings["mask_ratio"],
        geometric_p=settings["geometric_p"], span_lower=settings["span_lower"], span_upper=settings["span_upper"],
        replacement=REPLACEMENT[settings["replacement"]], endpoints=settings["endpoints"],
        max_span_positions=settings["max_pair_targets"])


@pytest.fixture(scope="module", autouse=True)
def optimized_maskers() -> Iterator[None]:
    """Thousands of long blocks take longer to mask than to compile for, unlike elsewhere in the tests."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@functools.cache
def _ours(name: str) -> dict[str, np.ndarray]:
    """Our counts per block, [N, bins] by statistic."""
    case = CASES[name]
    settings, count = case["settings"], case["blocks"]
    length = settings["block_length"]
    blocks = sampler.random_blocks(np.random.default_rng(1), count, length, settings["word_start_fraction"])
    masker = make_masker(_settings_of(settings), length=length + 2, max_blocks=1, special=sampler.SPECIAL,
                         unigram=sampler.UNIGRAM)
    out = jax.device_get(masker(jax.random.split(jax.random.key(2), count), sampler.single_rows(blocks)))
    masks = np.zeros((count, length + 2), bool)
    np.put_along_axis(masks, out.positions, True, axis=1)
    masks = masks[:, 1:-1]
    boundary = out.boundary_weights > 0
    return {**statistics.mask_counts(masks, blocks.word_starts),
            **statistics.outcome_counts(masks, blocks.tokens, out.inputs[:, 1:-1], sampler.MASK),
            "boundary_rows": (boundary & (out.place == 0)).sum(1, keepdims=True),
            "boundary_targets": boundary.sum(1, keepdims=True),
            "masked": masks.sum(1, keepdims=True)}


def _theirs(name: str) -> dict[str, np.ndarray]:
    """The reference's mean counts per block, [bins] by statistic; shares of spans times spans per block."""
    case = CASES[name]
    bins = case["settings"]["block_length"] + 1
    spans = case["mean_merged_spans_per_block"]

    def histogram(shares: dict[str, float]) -> np.ndarray:
        return np.array([shares.get(str(i), 0.0) for i in range(bins)])

    tokens, outcomes = case["token_replacement"], case["span_replacement"]
    return {"spans": histogram(case["merged_spans_per_block_hist"]),
            "lengths": histogram(case["merged_span_length_hist"]) * spans,
            "cuts": np.array([case["span_end_cuts_a_word"] * spans]),
            "at_word_start": np.array([case["span_starts_at_word_start"] * spans]),
            "token_outcomes": np.array([tokens[k] for k in ("mask", "random", "kept")]) * case["masked_per_block"],
            "span_outcomes": spans * np.array(
                [outcomes.get(k, 0.0) for k in ("all_kept", "all_mask", "no_mask_some_changed", "mixed")]),
            "boundary_rows": np.array([case["mean_sbo_rows"]]),
            "boundary_targets": np.array([case["mean_sbo_targets"]]),
            "positions": np.array(list(case["mask_probability_at"].values()))}


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("name", CASES)
def test_distribution_equals_the_reference(name: str, statistic: str) -> None:
    ours, theirs = _ours(name)[statistic], _theirs(name)[statistic]
    if statistic == "positions":
        ours = ours[:, [int(i) for i in CASES[name]["mask_probability_at"]]]
    p = statistics.equal_distribution_p_value(ours, theirs, CASES[name]["blocks"])
    assert p > SIGNIFICANCE / (len(CASES) * len(STATISTICS)), (p, ours.mean(0), theirs)


@pytest.mark.parametrize("name", CASES)
def test_budget_equals_the_reference(name: str) -> None:
    assert np.all(_ours(name)["masked"] == CASES[name]["masked_per_block"])


@pytest.mark.parametrize("name", CASES)
def test_span_schemes_start_spans_at_words(name: str) -> None:
    if CASES[name]["span_starts_at_word_start"] == 1:
        np.testing.assert_array_equal(_ours(name)["at_word_start"][:, 0], _ours(name)["lengths"].sum(1))
    else:
        assert np.any(_ours(name)["at_word_start"][:, 0] < _ours(name)["lengths"].sum(1))
