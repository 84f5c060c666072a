"""Features: model inputs made from examples, as flat arrays that can be stored on disk as they are."""
from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclasses.dataclass(frozen=True)
class TokenSequences:
    """Tokens of n sequences, one after the other, T in total.

    Attributes:
      starts: [n + 1] int64, where each sequence starts, and T.
      tokens: [T] int32 token ids.
    """
    starts: np.ndarray
    tokens: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """[n] tokens per sequence."""
        return np.diff(self.starts)

    def __getitem__(self, number: int) -> np.ndarray:
        """The tokens of a sequence."""
        return self.tokens[self.starts[number]:self.starts[number + 1]]


@dataclasses.dataclass(frozen=True)
class Features:
    """Model inputs: n features one after the other, T tokens in total.

    Attributes:
      example: [n] int32, ascending, the number of the example that each feature belongs to.
      starts: [n + 1] int64, where each feature starts, and T.
      tokens: [T] int32 token ids, special tokens included.
      token_types: [T] uint8.
      columns: arrays [n, ...] by name, an entry per feature.
      token_columns: arrays [T, ...] by name, an entry per token.
      labels: target sequences of a decoder, from the start token to the end token; None if there are none.
    """
    example: np.ndarray
    starts: np.ndarray
    tokens: np.ndarray
    token_types: np.ndarray
    columns: dict[str, np.ndarray]
    token_columns: dict[str, np.ndarray]
    labels: TokenSequences | None = None

    def __len__(self) -> int:
        return len(self.example)

    @property
    def lengths(self) -> np.ndarray:
        """[n] tokens per feature."""
        return np.diff(self.starts)

    def token_slice(self, feature: int) -> slice:
        """The tokens of a feature."""
        return slice(int(self.starts[feature]), int(self.starts[feature + 1]))

    def by_example(self, count: int) -> list[range]:
        """The features of each of `count` examples."""
        bounds = np.searchsorted(self.example, np.arange(count + 1))
        return [range(first, end) for first, end in zip(bounds[:-1].tolist(), bounds[1:].tolist())]


class FeatureBuilder:
    """Collects features one by one."""

    def __init__(self) -> None:
        self._examples: list[int] = []
        self._tokens: list[np.ndarray] = []
        self._token_types: list[np.ndarray] = []
        self._columns: dict[str, list[Any]] = {}
        self._token_columns: dict[str, list[np.ndarray]] = {}
        self._labels: list[np.ndarray] = []

    def add(self, example: int, tokens: ArrayLike, token_types: ArrayLike,
            columns: Mapping[str, Any] | None = None, token_columns: Mapping[str, ArrayLike] | None = None,
            labels: ArrayLike | None = None) -> None:
        """Adds a feature. All features have the same columns and token columns, and all or none have labels."""
        self._examples.append(example)
        self._tokens.append(np.asarray(tokens, np.int32))
        self._token_types.append(np.asarray(token_types, np.uint8))
        for name, value in (columns or {}).items():
            self._columns.setdefault(name, []).append(value)
        for name, values in (token_columns or {}).items():
            array = np.asarray(values)
            if len(array) != len(self._tokens[-1]):
                raise ValueError(f"{name}: {len(array)} entries for {len(self._tokens[-1])} tokens")
            self._token_columns.setdefault(name, []).append(array)
        if labels is not None:
            self._labels.append(np.asarray(labels, np.int32))

    def build(self, columns: Mapping[str, Any] | None = None,
              token_columns: Mapping[str, Any] | None = None) -> Features:
        """All features added so far.

        Args:
          columns, token_columns: dtypes by name, also if no feature was added.
        """
        def flat(arrays: list[np.ndarray], dtype: Any) -> np.ndarray:
            return np.concatenate(arrays).astype(dtype) if arrays else np.zeros(0, dtype)

        def starts(arrays: list[np.ndarray]) -> np.ndarray:
            return np.cumsum([0, *map(len, arrays)], dtype=np.int64)

        labels = TokenSequences(starts(self._labels), flat(self._labels, np.int32)) if self._labels else None
        return Features(
            np.asarray(self._examples, np.int32), starts(self._tokens),
            flat(self._tokens, np.int32), flat(self._token_types, np.uint8),
            {name: np.asarray(self._columns.get(name, []), dtype) for name, dtype in (columns or {}).items()},
            {name: flat(self._token_columns.get(name, []), dtype) for name, dtype in (token_columns or {}).items()},
            labels)
