"""Replacement of masked tokens: shares, corpus unigram, groups that share an outcome."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from spanbert_jax.common.errors import UserError
from spanbert_jax.masking import MaskingSettings
from spanbert_jax.masking.replacement import make_replacement

MASK, SPECIAL, TOKEN = 4, (0, 2, 3, 4), 59  # TOKEN does not occur in the corpus, so no random token equals it
SLOTS = 100_000


def _counts() -> np.ndarray:
    counts = np.random.default_rng(15).zipf(1.5, 60).clip(0, 1000)
    counts[20:30] = 0
    counts[TOKEN] = 0
    return counts


def _replace(mask_share: float, random_share: float, group: np.ndarray | None = None) -> np.ndarray:
    settings = MaskingSettings(mask_share=mask_share, random_share=random_share)
    replace = make_replacement(settings, MASK, SPECIAL, _counts())
    group = jnp.arange(SLOTS) if group is None else jnp.asarray(group)
    bits = jax.random.bits(jax.random.key(16), (2, SLOTS), jnp.uint32)
    return np.asarray(replace(bits, jnp.full(SLOTS, TOKEN), group))


@pytest.mark.parametrize("mask_share,random_share", [(1.0, 0.0), (0.0, 0.0), (0.0, 1.0), (0.25, 0.35), (0.8, 0.1)])
def test_shares(mask_share: float, random_share: float) -> None:
    replaced = _replace(mask_share, random_share)
    seen = [np.sum(replaced == MASK), np.sum((replaced != MASK) & (replaced != TOKEN)), np.sum(replaced == TOKEN)]
    for count, share in zip(seen, (mask_share, random_share, 1 - mask_share - random_share)):
        assert stats.binomtest(int(count), SLOTS, min(1.0, max(0.0, share))).pvalue > 1e-4


@pytest.mark.parametrize("mask_share,random_share", [(0.0, 1.0), (0.5, 0.2)])
def test_random_tokens_follow_the_corpus_unigram(mask_share: float, random_share: float) -> None:
    replaced = _replace(mask_share, random_share)
    seen = np.bincount(replaced[(replaced != MASK) & (replaced != TOKEN)], minlength=60)
    expected = np.where(np.isin(np.arange(60), SPECIAL), 0, _counts()).astype(float)
    drawn = expected > 0
    assert drawn[1]  # [UNK] counts as a token of the corpus, as in the reference
    assert not seen[~drawn].any()
    assert stats.chisquare(seen[drawn], expected[drawn] * seen.sum() / expected.sum()).pvalue > 1e-4


def test_a_group_shares_its_outcome_but_not_its_random_tokens() -> None:
    replaced = _replace(0.3, 0.4, group=np.arange(SLOTS) // 5 * 5).reshape(-1, 5)
    outcome = np.select([replaced == MASK, replaced == TOKEN], [0, 1], 2)
    assert np.all(outcome == outcome[:, :1])
    random_groups = replaced[outcome[:, 0] == 2]
    assert np.mean(np.any(random_groups != random_groups[:, :1], axis=1)) > 0.5


def test_a_unigram_of_special_tokens_only_is_refused() -> None:
    with pytest.raises(UserError, match="unigram"):
        make_replacement(MaskingSettings(), MASK, SPECIAL, np.where(np.arange(60) == MASK, 5, 0))
