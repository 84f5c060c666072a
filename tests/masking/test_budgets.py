"""Budgets of blocks, and the slots that a row needs at most."""
import math

import numpy as np
import pytest

from spanbert_jax.masking.budgets import budget_table, max_masked

RATES = [0.05, 0.07, 0.15, 0.3, 0.5, 0.9, 1.0]


@pytest.mark.parametrize("rate", RATES)
def test_budgets_equal_those_of_python_floats(rate: float) -> None:
    assert budget_table(rate, 600).tolist() == [math.ceil(n * rate) for n in range(601)]


def _fullest(rate: float, length: int, most_blocks: int) -> np.ndarray:
    """[k, s] the largest sum of budgets of at most k blocks in s positions, adding texts and pairs one at a time."""
    budget = [math.ceil(n * rate) for n in range(length + 1)]
    single = {n + 2: budget[n] for n in range(1, length - 1)}
    pair: dict[int, int] = {}
    for a in range(1, length):
        for b in range(1, length - a - 2):
            pair[a + b + 3] = max(pair.get(a + b + 3, 0), budget[a] + budget[b])
    best = np.zeros((most_blocks + 1, length + 1), int)
    for blocks in range(1, most_blocks + 1):
        for s in range(length + 1):
            sums = [best[blocks - 1, s]]
            sums += [best[blocks - 1, s - used] + most for used, most in single.items() if used <= s]
            if blocks > 1:
                sums += [best[blocks - 2, s - used] + most for used, most in pair.items() if used <= s]
            best[blocks, s] = max(sums)
    return best


@pytest.mark.parametrize("rate", RATES)
def test_max_masked_is_reached_by_the_fullest_row_and_never_exceeded(rate: float) -> None:
    best = _fullest(rate, 70, 5)
    for blocks in range(1, 6):
        assert [max_masked(rate, s, blocks) for s in range(71)] == best[blocks].tolist()


def test_max_masked_of_a_full_row_is_the_published_budget() -> None:
    assert [max_masked(0.15, length, 1) for length in (512, 128, 22, 3)] == [77, 19, 3, 1]
