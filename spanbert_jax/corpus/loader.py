"""Batches of rows: random access to rows, their order as a function of (seed, step), and read-ahead."""
import functools
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.corpus.corpus import REPORT, Corpus, corrupt_corpus
from spanbert_jax.corpus.example_layout import ExampleLayout
from spanbert_jax.corpus.rows import UINT8_FEATURES, token_dtype

NumberedBatch = tuple[int, np.ndarray, dict[str, np.ndarray]]  # number, row numbers [B], rows [R] by feature

_READERS, _BATCHES_AHEAD = 4, 8


class Rows(Protocol):
    """Random access to rows; safe to use from several threads."""

    def __len__(self) -> int: ...

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns arrays [B, ...] by name, among them "segments" [B, S] with 0 for padding.

        `indices` [B] are row numbers; -1, where a source allows it, is a row of padding.
        """


class RowSource:
    """Random access to the rows of one split, in batches. Thread-safe."""

    def __init__(self, corpus: Corpus, split: str):
        """Opens a split. Raises UserError if it has no rows, or its files are damaged or have other rows."""
        if not corpus.num_rows.get(split):
            raise UserError(f"corpus {corpus.path}: split {split!r} has no rows (it has "
                            f"{', '.join(f'{name}: {count}' for name, count in corpus.num_rows.items())})")
        from array_record.python import array_record_module  # takes 0.1 s, which opening a corpus does not need

        self._path, self._files = corpus.path, corpus.shards(split)
        # Without read-ahead, because the indices are random.
        self._readers = [array_record_module.ArrayRecordReader(str(file), options="readahead_buffer_size:0")
                         for file in self._files]
        # The reader of a file with a damaged index has no records, and raises the reason only when it reads one.
        for shard, reader in enumerate(self._readers):
            if not reader.num_records():
                self._read(shard, [0])
        self._ends = np.cumsum([reader.num_records() for reader in self._readers])
        if not len(self._ends) or self._ends[-1] != corpus.num_rows[split]:
            raise corrupt_corpus(corpus.path, REPORT, f"{corpus.num_rows[split]} rows of split {split!r} reported, but "
                                 f"{self._ends[-1] if len(self._ends) else 0} found")
        self._token_dtype = token_dtype(corpus.vocab_size)
        sizes = {"tokens": corpus.length * self._token_dtype.itemsize, "next_sentence": 4,
                 **dict.fromkeys(UINT8_FEATURES, corpus.length)}
        try:
            self._layout = ExampleLayout(self._read(0, [0])[0], sizes)
        except ValueError as error:
            raise corrupt_corpus(corpus.path, self._files[0].name, f"holds no rows of this corpus ({error})") from None

    def __len__(self) -> int:
        return int(self._ends[-1])

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the rows `indices` [B], which may repeat, in this order.

        They are tokens [B, S] int32; word_starts, segments, token_types, annotations [B, S] uint8; next_sentence [B]
        int32. Raises IndexError if a row number is outside 0..len-1, and UserError if a file is damaged, or was cut
        short or replaced after it was opened.
        """
        indices = np.asarray(indices, np.int64)
        if len(indices) and not (0 <= indices.min() and indices.max() < len(self)):
            raise IndexError(f"row numbers must lie in 0..{len(self) - 1}, not {indices.min()}..{indices.max()}")
        shard_of = np.searchsorted(self._ends, indices, "right")
        records = self._records(indices, shard_of)
        try:
            rows = self._layout.split(records)
        except ValueError:
            for shard, record in zip(shard_of, records):
                try:
                    self._layout.starts(record)
                except ValueError as error:
                    raise corrupt_corpus(self._path, self._files[shard].name,
                                         f"cut short or replaced since it was opened ({error})") from None
            raise
        rows["tokens"] = rows["tokens"].view(self._token_dtype).astype(np.int32)
        rows["next_sentence"] = rows["next_sentence"].view(np.int32)[:, 0]
        return rows

    def _records(self, indices: np.ndarray, shard_of: np.ndarray) -> list[bytes]:
        records: list[bytes] = [b""] * len(indices)
        for shard in np.unique(shard_of).tolist():
            positions = np.flatnonzero(shard_of == shard)
            first = int(self._ends[shard - 1]) if shard else 0
            for position, record in zip(positions.tolist(), self._read(shard, (indices[positions] - first).tolist())):
                records[position] = record
        return records

    def _read(self, shard: int, records: list[int]) -> list[bytes]:
        try:
            return self._readers[shard].read(records)
        except RuntimeError as error:
            reason = str(error).splitlines()[0].split(" (")[0].split(";")[0]
            raise corrupt_corpus(self._path, self._files[shard].name, f"cannot be read ({reason})") from None


class RowOrder:
    """Row numbers of each batch: a seeded permutation per epoch. A batch may continue into the next epoch."""

    def __init__(self, num_rows: int, batch_size: int, seed: int, padding: int = 0):
        """Orders `num_rows` rows, which may be fewer than a batch. `padding` -1 entries follow those of each batch."""
        import grain  # imports jax, which reading a corpus does not need

        self._batch_size, self._padding = batch_size, np.full(padding, -1, np.int64)
        self._order = grain.MapDataset.range(num_rows).seed(seed).shuffle().repeat()

    def indices(self, step: int) -> np.ndarray:
        """Returns the row numbers [B + padding] int64 of a step, counted from 0. They depend on nothing else."""
        numbers = self.row_numbers(step * self._batch_size, self._batch_size)
        return np.concatenate([numbers, self._padding])

    def row_numbers(self, start: int, count: int) -> np.ndarray:
        """Returns `count` row numbers int64 of the order, from position `start` on, over all epochs."""
        return np.array([self._order[i] for i in range(start, start + count)], np.int64)


def batches(source: Rows, indices: Callable[[int], np.ndarray], numbers: range,
            positions: np.ndarray | None = None) -> Iterator[NumberedBatch]:
    """Yields batches (number, row numbers [B], rows), reading ahead. Raises UserError like `RowSource.rows`.

    Args:
      indices: from the number of a batch to its row numbers [B], such as `RowOrder.indices`.
      numbers: the batches to yield; no other is read.
      positions: [R] positions in a batch, ascending, of the rows to read and yield; None for all.
    """
    import grain
    options = grain.ReadOptions(num_threads=_READERS, prefetch_buffer_size=_BATCHES_AHEAD)
    read = functools.partial(_read, source, indices, slice(None) if positions is None else positions)
    yield from grain.MapDataset.range(numbers.start, numbers.stop).map(read).to_iter_dataset(options)


def _read(source: Rows, indices: Callable[[int], np.ndarray], positions: np.ndarray | slice,
          number: int) -> NumberedBatch:
    row_numbers = indices(number)
    return number, row_numbers, source.rows(row_numbers[positions])
