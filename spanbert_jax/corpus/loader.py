"""Rows by index, their order as a function of (seed, step), and batches read ahead."""
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from spanbert_jax.corpus.corpus import Corpus, shards
from spanbert_jax.errors import UserError

NumberedBatch = tuple[int, np.ndarray, dict[str, np.ndarray]]  # step, row numbers [B], rows by feature

_ENDLESS = 2**62
_READERS, _BATCHES_AHEAD = 4, 8


class RowSource:
    """Random access to the rows of one split, in batches. Safe to use from several threads."""

    def __init__(self, corpus: Corpus, split: str):
        """Raises UserError if the split has no rows or the files hold another number of rows than reported."""
        if not corpus.num_rows.get(split):
            raise UserError(f"corpus {corpus.path}: split {split!r} has no rows (it has "
                            f"{', '.join(f'{name}: {count}' for name, count in corpus.num_rows.items())})")
        from array_record.python import array_record_module  # 0.1 s that a mere look at a corpus need not pay

        # Without read-ahead: the indices are random.
        self._readers = [array_record_module.ArrayRecordReader(str(file), options="readahead_buffer_size:0")
                         for file in shards(corpus.path, split)]
        counts = [reader.num_records() for reader in self._readers]
        self._ends = np.cumsum(counts)
        if self._ends[-1] != corpus.num_rows[split]:
            raise UserError(f"corpus {corpus.path}: split {split!r} holds {self._ends[-1]} rows where report.json says "
                            f"{corpus.num_rows[split]}; run prepare with --overwrite")
        self._length = corpus.length
        self._frame = _Frame(self._readers[0].read([0])[0])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Reads rows in the order asked.

        Args:
          indices: [B] row numbers, repeats allowed.

        Returns:
          tokens [B, S] int32; word_starts, segments, token_types, annotations [B, S] uint8; next_sentence [B] int32.

        Raises:
          IndexError: a number outside 0..len-1.
        """
        indices = np.asarray(indices, np.int64)
        if len(indices) and not (0 <= indices.min() and indices.max() < len(self)):
            raise IndexError(f"row numbers must lie in 0..{len(self) - 1}, not {indices.min()}..{indices.max()}")
        records = self._records(indices)
        fields = self._frame.fields(records)
        sizes = {"tokens": fields["tokens"].shape[1] // self._length, "next_sentence": 4}
        types = {1: np.uint8, 2: np.uint16, 4: np.int32}
        rows = {name: array.view(types[sizes.get(name, 1)]) for name, array in fields.items()}
        rows["tokens"] = rows["tokens"].astype(np.int32)
        rows["next_sentence"] = rows["next_sentence"][:, 0]
        return rows

    def _records(self, indices: np.ndarray) -> list[bytes]:
        shard_of = np.searchsorted(self._ends, indices, "right")
        records: list[bytes] = [b""] * len(indices)
        for shard in np.unique(shard_of).tolist():
            places = np.flatnonzero(shard_of == shard)
            first = int(self._ends[shard - 1]) if shard else 0
            for place, record in zip(places.tolist(), self._readers[shard].read((indices[places] - first).tolist())):
                records[place] = record
        return records


class RowOrder:
    """Which rows make the batch of a step: a seeded permutation for each epoch, batches running on across epochs."""

    def __init__(self, num_rows: int, batch_size: int, seed: int):
        """Args: num_rows: of the split, may be below batch_size; batch_size: B; seed: of the permutations."""
        import grain  # imports jax, which reading a corpus does not need

        self._batch_size = batch_size
        self._order = grain.MapDataset.range(num_rows).seed(seed).shuffle().repeat()

    def indices(self, step: int) -> np.ndarray:
        """[B] int64 row numbers of the batch of a step, counted from 0; nothing but the four numbers decides them."""
        start = step * self._batch_size
        return np.array([self._order[i] for i in range(start, start + self._batch_size)], np.int64)


def batches(source: RowSource, order: RowOrder, first_step: int = 0) -> Iterator[NumberedBatch]:
    """Yields (step, [B] row numbers, rows) from `first_step` on without end, reading ahead.

    Args:
      source: the rows.
      order: which rows a step takes.
      first_step: where to begin; nothing before it is read.
    """
    import grain

    options = grain.ReadOptions(num_threads=_READERS, prefetch_buffer_size=_BATCHES_AHEAD)
    read = functools.partial(_read, source, order)
    yield from grain.MapDataset.range(first_step, _ENDLESS).map(read).to_iter_dataset(options)


def _read(source: RowSource, order: RowOrder, step: int) -> NumberedBatch:
    indices = order.indices(step)
    return step, indices, source.rows(indices)


class _Frame:
    """Where the features lie in a serialised tf.train.Example of fixed-size bytes features.

    All rows of a corpus have the same frame around their payload, so a batch is cut up by slicing one matrix; rows
    whose frame differs (the format lets features come in any order) are parsed one by one.
    """

    def __init__(self, record: bytes):
        self._places = feature_places(record)
        self._size = len(record)
        outside = np.ones(len(record), bool)
        for start, size in self._places.values():
            outside[start:start + size] = False
        self._outside = np.flatnonzero(outside)
        self._expected = np.frombuffer(record, np.uint8)[self._outside]

    def fields(self, records: list[bytes]) -> dict[str, np.ndarray]:
        """Returns [B, bytes] uint8 for each feature."""
        if all(len(record) == self._size for record in records):
            matrix = np.frombuffer(b"".join(records), np.uint8).reshape(-1, self._size)
            if (matrix[:, self._outside] == self._expected).all():
                return {name: np.ascontiguousarray(matrix[:, start:start + size])
                        for name, (start, size) in self._places.items()}
        fields: dict[str, Any] = {name: [] for name in self._places}
        for record in records:
            for name, (start, size) in feature_places(record).items():
                fields[name].append(np.frombuffer(record, np.uint8, size, start))
        return {name: np.stack(arrays) for name, arrays in fields.items()}


def feature_places(record: bytes) -> dict[str, tuple[int, int]]:
    """(start, size) of the value of every one-value bytes feature in a serialised tf.train.Example.

    Example{features=1} -> Features{feature=1: map} -> {key=1, value=2} -> Feature{bytes_list=1} -> BytesList{value=1};
    every one of these fields is length-delimited.
    """
    places = {}
    (_, start, end), = _messages(record, 0, len(record))
    for _, entry_start, entry_end in _messages(record, start, end):
        parts = {number: (begin, stop) for number, begin, stop in _messages(record, entry_start, entry_end)}
        begin, stop = parts[2]
        for _ in range(2):  # down into the bytes list, then its value
            (_, begin, stop), = _messages(record, begin, stop)
        places[record[slice(*parts[1])].decode()] = (begin, stop - begin)
    return places


def _messages(record: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yields (field number, start, end) of the length-delimited fields of a message."""
    while start < end:
        tag, start = _varint(record, start)
        if tag & 7 != 2:
            raise ValueError(f"wire type {tag & 7} at byte {start}: not a row of bytes features")
        size, start = _varint(record, start)
        yield tag >> 3, start, start + size
        start += size


def _varint(record: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = record[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
