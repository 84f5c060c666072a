"""Features: what a network reads of examples, as flat arrays that a disk can hold as they are."""
from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Texts:
    """Pieces of n texts one after the other, T in all.

    Attributes:
      starts: [n + 1] int64: where each text's pieces begin, and T.
      tokens: [T] int32 piece ids.
    """
    starts: np.ndarray
    tokens: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """[n] pieces in each text."""
        return np.diff(self.starts)

    def of(self, text: int) -> np.ndarray:
        """A text's pieces."""
        return self.tokens[self.starts[text]:self.starts[text + 1]]


@dataclasses.dataclass(frozen=True)
class Features:
    """Pieces for the network to read, n features one after the other, T pieces in all.

    Attributes:
      example: [n] int32, ascending: which of the examples each feature is made of.
      starts: [n + 1] int64: where each feature's pieces begin, and T.
      tokens: [T] int32 piece ids, special pieces among them.
      token_types: [T] uint8.
      columns: arrays [n, ...] by name, an entry for each feature.
      pieces: arrays [T, ...] by name, an entry for each piece.
      labels: what is to be written for each feature, from the piece that begins every text to the one that ends it;
        None where nothing is written, or it is not known.
    """
    example: np.ndarray
    starts: np.ndarray
    tokens: np.ndarray
    token_types: np.ndarray
    columns: dict[str, np.ndarray]
    pieces: dict[str, np.ndarray]
    labels: Texts | None = None

    def __len__(self) -> int:
        return len(self.example)

    @property
    def lengths(self) -> np.ndarray:
        """[n] pieces in each feature."""
        return np.diff(self.starts)

    def of(self, feature: int) -> slice:
        """Where a feature's pieces lie."""
        return slice(int(self.starts[feature]), int(self.starts[feature + 1]))

    def by_example(self, count: int) -> list[range]:
        """The features of each of `count` examples."""
        bounds = np.searchsorted(self.example, np.arange(count + 1))
        return [range(first, end) for first, end in zip(bounds[:-1].tolist(), bounds[1:].tolist())]


class FeatureList:
    """Features while they are being made."""

    def __init__(self) -> None:
        self._examples: list[int] = []
        self._tokens: list[np.ndarray] = []
        self._token_types: list[np.ndarray] = []
        self._columns: dict[str, list[Any]] = {}
        self._pieces: dict[str, list[np.ndarray]] = {}
        self._labels: list[np.ndarray] = []

    def add(self, example: int, tokens: Sequence[int], token_types: Sequence[int],
            columns: Mapping[str, Any] | None = None, pieces: Mapping[str, Sequence[Any]] | None = None,
            labels: Sequence[int] | None = None) -> None:
        """Adds a feature; every one has the same names of columns and pieces, and labels if any has."""
        self._examples.append(example)
        self._tokens.append(np.asarray(tokens, np.int32))
        self._token_types.append(np.asarray(token_types, np.uint8))
        for name, value in (columns or {}).items():
            self._columns.setdefault(name, []).append(value)
        for name, values in (pieces or {}).items():
            if len(values) != len(tokens):
                raise ValueError(f"{name}: {len(values)} entries for {len(tokens)} pieces")
            self._pieces.setdefault(name, []).append(np.asarray(values))
        if labels is not None:
            self._labels.append(np.asarray(labels, np.int32))

    def features(self, columns: Mapping[str, Any] | None = None, pieces: Mapping[str, Any] | None = None) -> Features:
        """All that were added.

        Args:
          columns, pieces: dtypes by name; also of those that no feature was added with.
        """
        def flat(arrays: list[np.ndarray], dtype: Any) -> np.ndarray:
            return np.concatenate(arrays).astype(dtype) if arrays else np.zeros(0, dtype)

        def starts(arrays: list[np.ndarray]) -> np.ndarray:
            return np.cumsum([0, *map(len, arrays)], dtype=np.int64)

        labels = Texts(starts(self._labels), flat(self._labels, np.int32)) if self._labels else None
        return Features(
            np.asarray(self._examples, np.int32), starts(self._tokens),
            flat(self._tokens, np.int32), flat(self._token_types, np.uint8),
            {name: np.asarray(self._columns.get(name, []), dtype) for name, dtype in (columns or {}).items()},
            {name: flat(self._pieces.get(name, []), dtype) for name, dtype in (pieces or {}).items()}, labels)
