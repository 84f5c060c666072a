"""Blocks of one document each: whole sentences up to the length, or windows."""
import bisect
from collections.abc import Sequence

import numpy as np


def sentence_blocks(ends: Sequence[int], budget: int) -> tuple[list[int], list[int]]:
    """Packs whole sentences greedily (reference: BlockDataset with break mode "doc", its losses mended).

    The reference skips a sentence longer than the budget, loses what stood before one that ends a document, and loses
    a last document without a blank line after it. Here such a sentence starts a block of its own and is cut every
    `budget` tokens; its tail joins the sentences after it.

    Args:
      ends: running token count after each sentence of the document.
      budget: tokens a block holds at most.

    Returns:
      Where the document is cut, from 0 to its last token; and the indices of the sentences that were cut.
    """
    cuts, cut_sentences = [0], []
    total = ends[-1] if len(ends) else 0
    while cuts[-1] < total:
        fitting = bisect.bisect_right(ends, cuts[-1] + budget)
        if fitting and ends[fitting - 1] > cuts[-1]:
            cuts.append(ends[fitting - 1])
        else:
            if not cut_sentences or cut_sentences[-1] != fitting:
                cut_sentences.append(fitting)
            cuts.append(cuts[-1] + budget)
    return cuts, cut_sentences


def window_blocks(total: int, budget: int) -> list[int]:
    """Cuts a document of `total` tokens every `budget` tokens, the last window being what is left."""
    return [*range(0, total, budget), total] if total else [0]


def best_fit(lengths: np.ndarray, capacity: int, most: int) -> list[list[int]]:
    """Puts items into as few bins as best-fit decreasing finds.

    Args:
      lengths: [n] item lengths, each at most `capacity`.
      capacity: what the lengths in a bin may sum to.
      most: items a bin may hold at most.

    Returns:
      Bins of item indices, items within a bin and bins by their first item in ascending order.
    """
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room left, bin), sorted
    for item in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[item])
        place = bisect.bisect_left(rooms, (length, -1))
        if place == len(rooms):
            bins.append([])
            room, chosen = capacity, len(bins) - 1
        else:
            room, chosen = rooms.pop(place)
        bins[chosen].append(item)
        if len(bins[chosen]) < most and room > length:
            bisect.insort(rooms, (room - length, chosen))
    return sorted(sorted(items) for items in bins)
