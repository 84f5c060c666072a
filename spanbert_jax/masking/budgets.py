"""Masking budgets: how many tokens of a block are masked, and how many of a row at most."""
import math

import numpy as np
from jaxtyping import Int32


def budget_table(rate: float, length: int) -> Int32[np.ndarray, " tokens"]:
    """Budgets by number of maskable tokens in a block: ceil(rate * n) for n from 0 to `length`.

    Computed in float64, as in the reference: in float32, 20 * 0.15 exceeds 3 and would give 4.
    """
    return np.ceil(np.arange(length + 1) * np.float64(rate)).astype(np.int32)


def max_masked(rate: float, length: int, max_blocks: int) -> int:
    """M, the static number of slots for masked positions in a row of `length` with up to `max_blocks` blocks.

    A single text has two special tokens ([CLS], [SEP]) and a pair of texts three, so k blocks leave at most
    length - k - ceil(k / 2) maskable tokens. M is the largest sum of budgets over all k, and over all ways to divide
    these tokens among the k blocks. Budgets are rounded up, so many short blocks need more slots than a long one.
    """
    budgets = budget_table(rate, length)
    # divided[t] is the largest sum of budgets when t tokens are divided among the blocks so far.
    divided = np.zeros_like(budgets)
    most = 0
    for blocks in range(1, max_blocks + 1):
        divided = np.array([np.max(divided[:t + 1] + budgets[t::-1]) for t in range(length + 1)])
        tokens = length - blocks - math.ceil(blocks / 2)
        if tokens >= blocks:
            most = max(most, int(divided[tokens]))
    return most
