"""How many tokens of a block are masked, and how many of a row at most."""
import math

import numpy as np


def budget_table(rate: float, length: int) -> np.ndarray:
    """Budgets [length + 1] int32: ceil(rate * n) for a block of n maskable tokens.

    Computed in float64, as the reference does: in float32, 20 * 0.15 is above 3 and would give 4.
    """
    return np.ceil(np.arange(length + 1) * np.float64(rate)).astype(np.int32)


def max_masked(rate: float, length: int, max_blocks: int) -> int:
    """The static number M of masked positions: the most that a row of `length` with up to `max_blocks` blocks needs.

    A text spends two special tokens ([CLS], [SEP]) and a pair of texts three, so k blocks leave at most
    length - k - ceil(k / 2) maskable tokens. M is the largest sum of budgets over the ways to divide these among the k
    blocks, and over k: since every budget is rounded up, many short blocks need more than one long one.
    """
    budgets = budget_table(rate, length)
    # [t]: the largest sum of budgets when t tokens are divided among the blocks so far.
    divided = np.zeros_like(budgets)
    most = 0
    for blocks in range(1, max_blocks + 1):
        divided = np.array([np.max(divided[:t + 1] + budgets[t::-1]) for t in range(length + 1)])
        tokens = length - blocks - math.ceil(blocks / 2)
        if tokens >= blocks:
            most = max(most, int(divided[tokens]))
    return most
