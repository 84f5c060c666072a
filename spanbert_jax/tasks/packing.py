"""Packs features into rows, several per row, so that almost nothing is computed on padding."""
import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from spanbert_jax.corpus.blocks import best_fit
from spanbert_jax.tasks.features import Features

# Training rows should consist of tokens, not padding, up to this share.
FULL = 0.9
_TOLERANCE = 0.01  # of that share: not worth longer rows
_MOST_TEXTS = 255  # text numbers are uint8, and 0 is padding
# Short row lengths; longer ones are multiples of the last, which fills the lanes of an accelerator.
_LENGTHS = (32, 64, 128)
_FACTORS = (1, 1.5, 2, 3, 4)
_LONGEST = 2048  # of rows that are longer than their longest text needs: memory grows with the length
_Lengths = TypeVar("_Lengths")


class PackedRows:
    """Features in rows of one length: a `corpus.Rows`.

    A row has "tokens", "segments" and "token_types" [S]; "first" [K], where each of its texts starts; "weights" [K], 1
    for a text and 0 for none; and the label fields: columns [K, ...] and token columns [S, ...].
    """

    def __init__(self, features: Features, bins: Sequence[Sequence[int]], length: int, pad: int,
                 label_fields: Sequence[str] = (), texts: int | None = None):
        """Computes the position of each feature.

        Args:
          bins: the features of each row.
          length: S.
          pad: id of [PAD].
          label_fields: names of the columns and token columns to include.
          texts: K, the maximum number of texts per row; by default the number of texts in the fullest row.
        """
        self.features, self.length, self._pad, self._label_fields = features, length, pad, tuple(label_fields)
        self._bins = [np.asarray(items, np.int64) for items in bins]
        self.texts = texts or max((len(items) for items in bins), default=1)
        # [n] The row of each feature (-1 if in none), its number in the row and its first position.
        self.row = np.full(len(features), -1, np.int64)
        self.slot, self.column = np.zeros(len(features), np.int64), np.zeros(len(features), np.int64)
        lengths = features.lengths
        for row, items in enumerate(self._bins):
            self.row[items], self.slot[items] = row, np.arange(len(items))
            self.column[items] = np.cumsum(lengths[items]) - lengths[items]

    def __len__(self) -> int:
        return len(self._bins)

    @property
    def filled(self) -> float:
        """The share of positions that are tokens."""
        return len(self.features.tokens) / max(1, len(self) * self.length)

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Rows with given numbers [R]; -1 gives a row of padding."""
        features, count = self.features, len(indices)
        batch: dict[str, np.ndarray] = {
            "tokens": np.full((count, self.length), self._pad, np.int32),
            "segments": np.zeros((count, self.length), np.uint8),
            "token_types": np.zeros((count, self.length), np.uint8),
            "first": np.zeros((count, self.texts), np.int32), "weights": np.zeros((count, self.texts), np.float32)}
        for name in self._label_fields:
            per_text = name in features.columns
            source = features.columns[name] if per_text else features.token_columns[name]
            width = self.texts if per_text else self.length
            batch[name] = np.zeros((count, width, *source.shape[1:]), source.dtype)
        for index, row in enumerate(np.asarray(indices).tolist()):
            for slot, feature in enumerate(self._bins[row].tolist() if row >= 0 else []):
                self._fill(batch, index, slot, feature)
        return batch

    def features_of(self, first: int, last: int) -> np.ndarray:
        """Numbers of the features in rows `first` to `last`, both included."""
        return self._by_row[slice(*np.searchsorted(self.row[self._by_row], [first, last + 1]))]

    @functools.cached_property
    def _by_row(self) -> np.ndarray:
        return np.argsort(self.row, kind="stable")

    def _fill(self, batch: dict[str, np.ndarray], index: int, slot: int, feature: int) -> None:
        """Copies a feature into row `index` of a batch."""
        features, source = self.features, self.features.token_slice(feature)
        start = int(self.column[feature])
        target = slice(start, start + source.stop - source.start)
        batch["tokens"][index, target] = features.tokens[source]
        batch["segments"][index, target] = slot + 1
        batch["token_types"][index, target] = features.token_types[source]
        batch["first"][index, slot], batch["weights"][index, slot] = start, 1
        for name in self._label_fields:
            if name in features.columns:
                batch[name][index, slot] = features.columns[name][feature]
            else:
                batch[name][index, target] = features.token_columns[name][source]


def pack(features: Features, length: int, pad: int, label_fields: Sequence[str] = (), seed: int | None = None,
         most: int | None = None) -> PackedRows:
    """Packs features into few rows by best-fit decreasing.

    Args:
      length: S, at least that of the longest feature.
      seed: of the order in which features of equal length are packed; without it the given order.
      most: maximum number of texts per row, and K of every row; `most_texts` by default.
    """
    lengths = features.lengths
    order = np.arange(len(lengths)) if seed is None else np.random.default_rng(seed).permutation(len(lengths))
    bins = best_fit(lengths[order], length, most or most_texts(lengths, length))
    return PackedRows(features, [order[items].tolist() for items in bins], length, pad, label_fields, most)


def rounded_length(least: int) -> int:
    """The smallest supported row length that is at least `least`."""
    return next((length for length in _LENGTHS if length >= least), -(-least // _LENGTHS[-1]) * _LENGTHS[-1])


def most_texts(lengths: np.ndarray, length: int) -> int:
    """Maximum number of texts per row: twice as many as fill it.

    Rows with very many very short texts would widen every array that has an entry per text.
    """
    return min(_MOST_TEXTS, math.ceil(2 * length / max(1.0, float(lengths.mean())))) if len(lengths) else 1


def row_length(lengths: np.ndarray) -> int:
    """The `shortest_full` row length for features of given lengths.

    It is 32, 64 or a multiple of 128, and larger than the longest feature needs, up to `_LONGEST`, if features of about
    the same length would leave rows half empty.
    """
    def candidates() -> Iterator[tuple[float, int]]:
        for factor in _FACTORS:
            length = rounded_length(math.ceil(int(lengths.max(initial=1)) * factor))
            if factor > 1 and length > _LONGEST:
                return
            yield float(lengths.sum()) / (length * max(1, len(best_fit(lengths, length, _MOST_TEXTS)))), length

    return shortest_full(candidates())


def shortest_full(candidates: Iterable[tuple[float, _Lengths]]) -> _Lengths:
    """The first candidate whose rows are `FULL`, else the first that is almost as full as the fullest.

    Candidates are pairs of the share of filled positions and the row length(s), the shortest first, because attention
    costs more in longer rows.
    """
    seen: list[tuple[float, _Lengths]] = []
    for filled, lengths in candidates:
        if filled >= FULL:
            return lengths
        seen.append((filled, lengths))
    fullest = max(filled for filled, _ in seen)
    return next(lengths for filled, lengths in seen if filled >= fullest - _TOLERANCE)


def split_rows(rows: PackedRows, batch: int) -> list[np.ndarray]:
    """The numbers of all rows, `batch` at a time; the last batch is filled up with -1, rows of padding."""
    numbers = np.full(math.ceil(len(rows) / batch) * batch, -1, np.int64)
    numbers[:len(rows)] = np.arange(len(rows))
    return list(numbers.reshape(-1, batch))


class UnpackedOutputs:
    """Outputs of rows, put back in the order of the features."""

    def __init__(self, features: Features, per_text: bool):
        """Starts without outputs; `per_text`: outputs have an entry per text of a row instead of per position."""
        self.outputs: dict[str, np.ndarray] = {}  # by name, [n, ...] or [T, ...]
        self._features, self._per_text = features, per_text

    def add(self, rows: PackedRows, numbers: np.ndarray, outputs: Mapping[str, np.ndarray]) -> None:
        """Adds the outputs [R, K or S, ...] of rows with given numbers, ascending, -1 for padding at the end."""
        real = numbers[numbers >= 0]
        if not len(real):
            return
        chosen = rows.features_of(int(real[0]), int(real[-1]))
        place = rows.row[chosen] - real[0]
        for name, values in outputs.items():
            count = len(self._features) if self._per_text else len(self._features.tokens)
            into = self.outputs.setdefault(name, np.zeros((count, *values.shape[2:]), values.dtype))
            if self._per_text:
                into[chosen] = values[place, rows.slot[chosen]]
                continue
            for feature, row, column in zip(chosen.tolist(), place.tolist(), rows.column[chosen].tolist()):
                source = self._features.token_slice(feature)
                into[source] = values[row, column:column + source.stop - source.start]
