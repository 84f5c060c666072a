"""Features packed into rows, several a row: next to nothing is computed on padding, and nothing else changes."""
from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from spanbert_jax.corpus.blocks import best_fit
from spanbert_jax.tasks.features import Features

# Of the positions of the rows that training computes at least so many are to be pieces.
FULL = 0.9
_NEARLY = 0.01  # a share that is not worth longer rows
_MOST_TEXTS = 255  # numbers of texts are uint8, and 0 is padding
# Lengths of short rows; those of longer ones are multiples of the last, which fills the lanes of an accelerator.
_LENGTHS = (32, 64, 128)
_LONGER = (1, 1.5, 2, 3, 4)
_Lengths = TypeVar("_Lengths")


class PackedRows:
    """Features in rows of one length: a `training.batches.Rows`.

    A row has "tokens", "segments" and "token_types" [S]; "first" and "weights" [K]: where each of its texts begins, and
    1 where there is one; and the targets: columns [K, ...] and pieces [S, ...].

    Attributes:
      features: that are in them.
      length: S.
      texts: K, texts in a row at most.
      row, slot, column: [n] the row of each feature, its number in the row and where in the row it begins.
    """

    def __init__(self, features: Features, bins: Sequence[Sequence[int]], length: int, pad: int,
                 targets: Sequence[str] = (), texts: int | None = None):
        """`bins`: the features of each row; `pad`: id of [PAD]; `targets`: names of the columns and pieces wanted;
        `texts`: K, if it is not to be the number of texts in the fullest row."""
        self.features, self.length, self._pad, self._targets = features, length, pad, tuple(targets)
        self._bins = [np.asarray(items, np.int64) for items in bins]
        self.texts = texts or max((len(items) for items in bins), default=1)
        self.row, self.slot, self.column = (np.zeros(len(features), np.int64) for _ in range(3))
        lengths = features.lengths
        for row, items in enumerate(self._bins):
            self.row[items], self.slot[items] = row, np.arange(len(items))
            self.column[items] = np.cumsum(lengths[items]) - lengths[items]

    def __len__(self) -> int:
        return len(self._bins)

    @property
    def filled(self) -> float:
        """The share of positions that are pieces."""
        return len(self.features.tokens) / max(1, len(self) * self.length)

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Rows by number [R]; a number of -1 gives a row of padding."""
        features, count = self.features, len(indices)
        batch = {"tokens": np.full((count, self.length), self._pad, np.int32),
                 "segments": np.zeros((count, self.length), np.uint8),
                 "token_types": np.zeros((count, self.length), np.uint8),
                 "first": np.zeros((count, self.texts), np.int32), "weights": np.zeros((count, self.texts), np.float32)}
        for name in self._targets:
            columns, values = (features.columns, self.texts) if name in features.columns else (
                features.pieces, self.length)
            source = columns[name]
            batch[name] = np.zeros((count, values, *source.shape[1:]), source.dtype)
        for place, row in enumerate(np.asarray(indices).tolist()):
            for slot, feature in enumerate(self._bins[row].tolist() if row >= 0 else []):
                self._put(batch, place, slot, feature)
        return batch

    def _put(self, batch: dict[str, np.ndarray], place: int, slot: int, feature: int) -> None:
        features, source = self.features, self.features.of(feature)
        start = int(self.column[feature])
        target = slice(start, start + source.stop - source.start)
        batch["tokens"][place, target] = features.tokens[source]
        batch["segments"][place, target] = slot + 1
        batch["token_types"][place, target] = features.token_types[source]
        batch["first"][place, slot], batch["weights"][place, slot] = start, 1
        for name in self._targets:
            if name in features.columns:
                batch[name][place, slot] = features.columns[name][feature]
            else:
                batch[name][place, target] = features.pieces[name][source]


def pack(features: Features, length: int, pad: int, targets: Sequence[str] = (), seed: int | None = None,
         most: int | None = None) -> PackedRows:
    """Packs features into as few rows as best-fit decreasing finds.

    Args:
      length: S, at least that of the longest feature.
      seed: of the order that features of one length are taken in; without it that of the features.
      most: texts in a row, of which every row then has so many entries; as `most_texts` has it, if not given.
    """
    lengths = features.lengths
    order = np.arange(len(lengths)) if seed is None else np.random.default_rng(seed).permutation(len(lengths))
    bins = best_fit(lengths[order], length, most or most_texts(lengths, length))
    return PackedRows(features, [order[items].tolist() for items in bins], length, pad, targets, most)


def rounded_length(least: int) -> int:
    """The least row length that programs are compiled for and that is no less than `least`."""
    return next((length for length in _LENGTHS if length >= least), -(-least // _LENGTHS[-1]) * _LENGTHS[-1])


def most_texts(lengths: np.ndarray, length: int) -> int:
    """Texts to have in a row at most: twice as many as fill it. Rows of very many very short ones would widen every
    array that has an entry for each text of a row."""
    return min(_MOST_TEXTS, math.ceil(2 * length / max(1.0, float(lengths.mean())))) if len(lengths) else 1


def row_length(lengths: np.ndarray) -> int:
    """The `least_full` row length of those tried.

    It is 32, 64 or a multiple of 128, and longer than the longest feature needs where features of much the same length
    would leave rows half empty.
    """
    def tried() -> Iterator[tuple[float, int]]:
        for factor in _LONGER:
            length = rounded_length(math.ceil(int(lengths.max(initial=1)) * factor))
            yield float(lengths.sum()) / (length * max(1, len(best_fit(lengths, length, _MOST_TEXTS)))), length

    return least_full(tried())


def least_full(tried: Iterable[tuple[float, _Lengths]]) -> _Lengths:
    """The first lengths at which rows are `FULL`, or else nearly as full as they get: attention costs more in longer.

    Args:
      tried: how full rows are, as a share, and their lengths, the least first.
    """
    seen: list[tuple[float, _Lengths]] = []
    for filled, lengths in tried:
        if filled >= FULL:
            return lengths
        seen.append((filled, lengths))
    fullest = max(filled for filled, _ in seen)
    return next(lengths for filled, lengths in seen if filled >= fullest - _NEARLY)


def split_rows(rows: PackedRows, batch: int) -> list[np.ndarray]:
    """The numbers of all rows, `batch` at a time; the last batch is filled up with -1, rows of padding."""
    numbers = np.full(math.ceil(len(rows) / batch) * batch, -1, np.int64)
    numbers[:len(rows)] = np.arange(len(rows))
    return list(numbers.reshape(-1, batch))


class Unpacked:
    """Outputs of rows put back where their features lie.

    Attributes:
      outputs: by name, [n, ...] or [T, ...].
    """

    def __init__(self, rows: PackedRows, per_text: bool):
        """`per_text`: whether an output has an entry for each text of a row, or for each position."""
        self.outputs: dict[str, np.ndarray] = {}
        self._rows, self._per_text = rows, per_text
        self._order = np.argsort(rows.row, kind="stable")
        self._sorted = rows.row[self._order]

    def add(self, numbers: np.ndarray, outputs: dict[str, np.ndarray]) -> None:
        """Takes the outputs [R, K or S, ...] of the rows of some numbers, ascending, -1 for padding at the end."""
        real = numbers[numbers >= 0]
        if not len(real):
            return
        chosen = self._order[slice(*np.searchsorted(self._sorted, [real[0], real[-1] + 1]))]
        place = self._rows.row[chosen] - real[0]
        for name, values in outputs.items():
            count = len(self._rows.features) if self._per_text else len(self._rows.features.tokens)
            into = self.outputs.setdefault(name, np.zeros((count, *values.shape[2:]), values.dtype))
            if self._per_text:
                into[chosen] = values[place, self._rows.slot[chosen]]
                continue
            for feature, row, column in zip(chosen.tolist(), place.tolist(), self._rows.column[chosen].tolist()):
                source = self._rows.features.of(feature)
                into[source] = values[row, column:column + source.stop - source.start]
