"""Features: model inputs made from examples, as flat arrays that can be stored on disk as they are."""
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_plural


@dataclasses.dataclass(frozen=True)
class TokenSequences:
    """Tokens of n sequences, one after the other, T in total."""
    starts: np.ndarray  # [n + 1] int64, where each sequence starts, and T
    tokens: np.ndarray  # [T] int32 token ids

    @property
    def lengths(self) -> np.ndarray:
        """[n] tokens per sequence."""
        return np.diff(self.starts)

    def __getitem__(self, number: int) -> np.ndarray:
        """The tokens of a sequence."""
        return self.tokens[self.starts[number]:self.starts[number + 1]]


@dataclasses.dataclass(frozen=True)
class Features:
    """Model inputs: n features one after the other, T tokens in total."""
    example: np.ndarray  # [n] int32, ascending, the number of the example that each feature belongs to
    starts: np.ndarray  # [n + 1] int64, where each feature starts, and T
    tokens: np.ndarray  # [T] int32 token ids, special tokens included
    token_types: np.ndarray  # [T] uint8
    columns: dict[str, np.ndarray]  # arrays [n, ...] by name, an entry per feature
    token_columns: dict[str, np.ndarray]  # arrays [T, ...] by name, an entry per token
    # Of each feature: the target of a decoder, from the start token to the end token; or what the task says.
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


def check_ids(features: Features, model: Any) -> None:
    """Raises UserError if an id has no row in an embedding of a model, whose outputs would not be numbers.

    `model` has the `config` of its encoder, and `decoder_config` if it has a decoder.
    """
    config, labels = model.config, features.labels
    tables = [("token id", features.tokens, config.vocab_size)]
    if config.token_types > 1:  # otherwise they are not looked up
        tables.append(("token type", features.token_types, config.token_types))
    if labels is not None and hasattr(model, "decoder_config"):
        tables.append(("target token id", labels.tokens, model.decoder_config.vocab_size))
    for name, ids, rows in tables:
        lowest, highest = int(ids.min(initial=0)), int(ids.max(initial=0))
        if lowest < 0 or highest >= rows:
            raise UserError(f"{name} {lowest if lowest < 0 else highest}: the model's embedding has "
                            f"{format_plural(rows, 'row')}; give the tokenizer and the model that belong together")


class FeatureBuilder:
    """Collects features one by one."""

    def __init__(self) -> None:
        self._added: list[tuple[Any, ...]] = []

    def add(self, example: int, tokens: ArrayLike, token_types: ArrayLike,
            columns: Mapping[str, Any] | None = None, token_columns: Mapping[str, ArrayLike] | None = None,
            labels: ArrayLike | None = None) -> None:
        """Adds a feature. All features have the same columns and token columns, and all or none have labels."""
        arrays = np.asarray(tokens, np.int32), np.asarray(token_types, np.uint8)
        by_token = {name: np.asarray(values) for name, values in (token_columns or {}).items()}
        for name, values in by_token.items():
            if len(values) != len(arrays[0]):
                raise ValueError(f"{name}: {len(values)} entries for {len(arrays[0])} tokens")
        labels = None if labels is None else np.asarray(labels, np.int32)
        self._added.append((example, *arrays, columns or {}, by_token, labels))

    def build(self, columns: Mapping[str, Any] | None = None,
              token_columns: Mapping[str, Any] | None = None) -> Features:
        """All features added so far; `columns` and `token_columns`: their dtypes by name."""
        def flat(arrays: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
            return np.concatenate(arrays).astype(dtype) if arrays else np.zeros(0, dtype)

        def starts(arrays: Sequence[np.ndarray]) -> np.ndarray:
            return np.cumsum([0, *map(len, arrays)], dtype=np.int64)

        examples, tokens, types, by_feature, by_token, labels = zip(*self._added) if self._added else ((),) * 6
        return Features(
            np.asarray(examples, np.int32), starts(tokens), flat(tokens, np.int32), flat(types, np.uint8),
            {name: np.asarray([one[name] for one in by_feature], dtype) for name, dtype in (columns or {}).items()},
            {name: flat([one[name] for one in by_token], dtype) for name, dtype in (token_columns or {}).items()},
            TokenSequences(starts(labels), flat(labels, np.int32)) if labels and labels[0] is not None else None)
