"""Cutting documents into blocks, by whole sentences or by windows, and packing blocks into rows."""
import bisect
from collections.abc import Sequence

import numpy as np


def sentence_blocks(ends: Sequence[int], budget: int) -> tuple[list[int], list[int]]:
    """Cuts a document into blocks of whole sentences, greedily (reference: BlockDataset with break mode "doc").

    Unlike the reference, no text is lost. The reference skips a sentence longer than the budget, and drops the block
    before such a sentence if it ends the document. Here an over-long sentence starts a block of its own and is cut
    every `budget` tokens; its rest is joined with the next sentences.

    Args:
      ends: token offset of the end of each sentence in the document.
      budget: maximum number of tokens in a block.

    Returns:
      The token offsets of the cuts, from 0 to the end of the document; and the indices of the sentences that were cut.
    """
    cuts, cut_sentences = [0], list[int]()
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
    """Returns the token offsets that cut a document of `total` tokens every `budget` tokens."""
    return [*range(0, total, budget), total] if total else [0]


def best_fit(lengths: np.ndarray, capacity: int, max_items: int) -> list[list[int]]:
    """Packs items into few bins by best-fit decreasing.

    Args:
      lengths: [n] item lengths, each at most `capacity`.
      capacity: maximum sum of the lengths in a bin.
      max_items: maximum number of items in a bin.

    Returns:
      Bins of item indices. Items in a bin are ascending, and so are the first items of the bins.
    """
    bins, rooms = list[list[int]](), list[tuple[int, int]]()  # rooms: (free room, bin), sorted
    for item in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[item])
        index = bisect.bisect_left(rooms, (length, -1))
        if index == len(rooms):
            bins.append([])
            room, chosen = capacity, len(bins) - 1
        else:
            room, chosen = rooms.pop(index)
        bins[chosen].append(item)
        if len(bins[chosen]) < max_items and room > length:
            bisect.insort(rooms, (room - length, chosen))
    return sorted(sorted(items) for items in bins)
