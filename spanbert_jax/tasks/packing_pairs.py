"""Packs sources and their targets into rows of two lengths."""
import math
from collections.abc import Iterator, Sequence

import numpy as np

from spanbert_jax.tasks.features import Features, TokenSequences
from spanbert_jax.tasks.packing import PackedRows, rounded_length, shortest_full

_FACTORS = (1, 1.5, 2, 3, 4, 6, 8)
_LABEL_MULTIPLE = 16  # row lengths of labels are multiples of it
_OPEN = 256  # rows that still take items
_MOST_TEXTS = 64


class PackedPairs(PackedRows):
    """Features in rows of S positions and their labels in rows of T positions.

    In addition to those of `PackedRows`, a row has "labels", "previous" and "label_segments" [T]: the target tokens,
    the token before each, and the number of its text as in "segments", 0 for padding.
    """

    def __init__(self, features: Features, bins: Sequence[Sequence[int]], length: int, label_length: int, pad: int):
        """As for `PackedRows`; `length` is S and `label_length` is T."""
        super().__init__(features, bins, length, pad)
        self.label_length = label_length

    @property
    def filled(self) -> float:
        """The share of positions that are tokens."""
        used = len(self.features.tokens) + int(label_lengths(self.features).sum())
        return used / max(1, len(self) * (self.length + self.label_length))

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Rows with given numbers [R]; -1 gives a row of padding."""
        batch, labels = super().rows(indices), labels_of(self.features)
        shape = (len(indices), self.label_length)
        batch |= {"labels": np.full(shape, self._pad, np.int32), "previous": np.full(shape, self._pad, np.int32),
                  "label_segments": np.zeros(shape, np.uint8)}
        for index, row in enumerate(np.asarray(indices).tolist()):
            start = 0
            for slot, feature in enumerate(self._bins[row].tolist() if row >= 0 else []):
                tokens = labels[feature]
                end = start + len(tokens) - 1
                batch["labels"][index, start:end], batch["previous"][index, start:end] = tokens[1:], tokens[:-1]
                batch["label_segments"][index, start:end] = slot + 1
                start = end
        return batch


def label_lengths(features: Features) -> np.ndarray:
    """[n] target tokens per feature: all labels except the start token."""
    return labels_of(features).lengths - 1


def labels_of(features: Features) -> TokenSequences:
    """The labels of features that have some."""
    if features.labels is None:
        raise ValueError("these features have no labels")
    return features.labels


def row_lengths(parts: Sequence[Features]) -> tuple[int, int]:
    """The `shortest_full` lengths S and T of rows that all features of several parts are packed into."""
    sources, labels = (np.concatenate([lengths(features) for features in parts])
                       for lengths in (lambda features: features.lengths, label_lengths))

    def candidates() -> Iterator[tuple[float, tuple[int, int]]]:
        for factor in _FACTORS:
            length = rounded_length(math.ceil(int(sources.max(initial=1)) * factor))
            share = length * labels.sum() / max(1, sources.sum())
            label_length = math.ceil(max(share, int(labels.max(initial=1))) / _LABEL_MULTIPLE) * _LABEL_MULTIPLE
            count = len(best_fit_pairs(sources, labels, length, label_length))
            filled = float(sources.sum() + labels.sum()) / ((length + label_length) * max(1, count))
            yield filled, (length, label_length)

    return shortest_full(candidates())


def pack_pairs(features: Features, length: int, label_length: int, pad: int, seed: int) -> PackedPairs:
    """Packs features into few rows of S = `length` and T = `label_length`; `seed`: of the order of equal features."""
    order = np.random.default_rng(seed).permutation(len(features))
    bins = best_fit_pairs(features.lengths[order], label_lengths(features)[order], length, label_length)
    return PackedPairs(features, [order[items].tolist() for items in bins], length, label_length, pad)


def best_fit_pairs(first: np.ndarray, second: np.ndarray, capacity: int, second_capacity: int) -> list[list[int]]:
    """Packs items of two lengths into bins of two capacities: the largest first, each where it leaves least room.

    Args:
      first, second: [n] lengths of the items, each at most its capacity.

    Returns:
      Bins of item indices, items within a bin and bins by their first item in ascending order.
    """
    sizes = np.stack([first / capacity, second / second_capacity], axis=1)
    bins: list[list[int]] = []
    rooms = np.zeros((0, 2))  # free shares of the open bins
    numbers: list[int] = []
    for item in np.argsort(-sizes.max(axis=1), kind="stable").tolist():
        fits = np.flatnonzero((rooms >= sizes[item] - 1e-9).all(axis=1))
        if len(fits):
            place = int(fits[np.argmin(rooms[fits].sum(axis=1))])
        else:
            if len(numbers) == _OPEN:  # close the fullest
                place = int(np.argmin(rooms.min(axis=1)))
                rooms = np.delete(rooms, place, axis=0)
                del numbers[place]
            place = len(numbers)
            rooms = np.append(rooms, [[1.0, 1.0]], axis=0)
            numbers.append(len(bins))
            bins.append([])
        bins[numbers[place]].append(item)
        rooms[place] -= sizes[item]
        if len(bins[numbers[place]]) == _MOST_TEXTS:
            rooms[place] = -1.0
    return sorted(sorted(items) for items in bins)
