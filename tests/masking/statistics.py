"""Counts of masked blocks, and a test that two samples of counts have one distribution."""
import numpy as np
from scipy import stats


def span_lengths(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maximal masked runs of masks [N, n] as three arrays over runs: block, first position, length."""
    edges = np.diff(np.pad(masks, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    block, start = np.nonzero(edges == 1)
    return block, start, np.nonzero(edges == -1)[1] - start


def per_block(block: np.ndarray, values: np.ndarray, count: int, bins: int) -> np.ndarray:
    """Counts [count, bins] of the integer `values` observed in each `block`."""
    return np.bincount(block * bins + values, minlength=count * bins).reshape(count, bins)


def mask_counts(masks: np.ndarray, word_starts: np.ndarray) -> dict[str, np.ndarray]:
    """Counts per block, [N, bins] by name."""
    count, length = masks.shape
    block, start, lengths = span_lengths(masks)
    spans = np.bincount(block, minlength=count)
    next_starts_word = np.pad(word_starts, ((0, 0), (0, 1)), constant_values=True)
    cut = ~next_starts_word[block, start + lengths]
    whole = word_starts[block, start]
    return {"spans": per_block(np.arange(count), spans, count, length + 1),
            "lengths": per_block(block, lengths, count, length + 1),
            "cuts": np.bincount(block[cut], minlength=count)[:, None],
            "at_word_start": np.bincount(block[whole], minlength=count)[:, None],
            "positions": masks}


def outcome_counts(masks: np.ndarray, tokens: np.ndarray, inputs: np.ndarray, mask_id: int) -> dict[str, np.ndarray]:
    """Outcomes of masked tokens [N, (mask, random, kept)] and spans [N, (all kept, all mask, none masked, mixed)]."""
    is_mask = masks & (inputs == mask_id)
    is_kept = masks & (inputs == tokens)
    token = np.stack([is_mask.sum(1), (masks & ~is_mask & ~is_kept).sum(1), is_kept.sum(1)], axis=1)
    block, start, lengths = span_lengths(masks)
    total = [np.pad(np.cumsum(x, axis=1), ((0, 0), (1, 0))) for x in (is_mask, is_kept)]
    masked, kept = [t[block, start + lengths] - t[block, start] for t in total]
    outcome = np.select([kept == lengths, masked == lengths, masked == 0], [0, 1, 2], 3)
    return {"token_outcomes": token, "span_outcomes": per_block(block, outcome, len(masks), 4)}


def pooling(weight: np.ndarray, least: float = 60) -> np.ndarray:
    """Joins neighbouring bins until each pool counts at least `least`. [bins] -> matrix [bins, pools]."""
    pools, pool, inside = np.zeros(len(weight), int), 0, 0.0
    for i, w in enumerate(weight):
        pools[i] = pool
        inside += w
        if inside >= least:
            pool, inside = pool + 1, 0.0
    pools[pools == pool] = max(0, pool - 1)  # the rest joins the last full pool
    return np.eye(pools.max() + 1)[pools]


def equal_distribution_p_value(ours: np.ndarray, theirs_mean: np.ndarray, theirs_count: int,
                               theirs: np.ndarray | None = None) -> float:
    """p-value of the hypothesis that counts `ours` [N, bins] and another sample have the same mean.

    A two-sample chi-square test on the mean counts of a block, with the covariance estimated from the blocks: counts
    within a block depend on each other (they share a budget), so the plain chi-square for independent counts would be
    wrong. Bins that are constant in the sample must agree exactly. Without the other sample itself, its covariance is
    taken to be ours.
    """
    pool = pooling(len(ours) * ours.mean(0) + theirs_count * theirs_mean)
    x = ours @ pool
    covariance = np.atleast_2d(np.cov(x, rowvar=False))
    other = covariance if theirs is None else np.atleast_2d(np.cov(theirs @ pool, rowvar=False))
    covariance = covariance / len(ours) + other / theirs_count
    difference = x.mean(0) - theirs_mean @ pool
    values, vectors = np.linalg.eigh(covariance)
    along = vectors.T @ difference
    free = values > 1e-9 * max(values.max(), 1e-9)
    if np.abs(along[~free]).max(initial=0) > 1e-6:
        return 0.0
    return float(stats.chi2.sf(np.sum(along[free] ** 2 / values[free]), free.sum())) if free.any() else 1.0
