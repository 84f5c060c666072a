"""Rows by index, their order as a function of (seed, step), and batches read ahead."""
import functools
from collections.abc import Callable, Iterator

import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.corpus.corpus import REPORT, Corpus, damaged
from spanbert_jax.corpus.rows import UINT8_FEATURES, token_dtype

NumberedBatch = tuple[int, np.ndarray, dict[str, np.ndarray]]  # number, row numbers [B], rows [R] by feature

_READERS, _BATCHES_AHEAD = 4, 8


class RowSource:
    """Random access to the rows of one split, in batches. Safe to use from several threads."""

    def __init__(self, corpus: Corpus, split: str):
        """Raises UserError if the split has no rows, or the files cannot be read or hold another number of rows."""
        if not corpus.num_rows.get(split):
            raise UserError(f"corpus {corpus.path}: split {split!r} has no rows (it has "
                            f"{', '.join(f'{name}: {count}' for name, count in corpus.num_rows.items())})")
        from array_record.python import array_record_module  # 0.1 s that a mere look at a corpus need not pay

        self._path, self._files = corpus.path, corpus.shards(split)
        # Without read-ahead: the indices are random.
        self._readers = [array_record_module.ArrayRecordReader(str(file), options="readahead_buffer_size:0")
                         for file in self._files]
        # The reader of a file whose index is damaged has no records, and says why when it is read.
        for shard, reader in enumerate(self._readers):
            if not reader.num_records():
                self._read(shard, [0])
        self._ends = np.cumsum([reader.num_records() for reader in self._readers])
        if not len(self._ends) or self._ends[-1] != corpus.num_rows[split]:
            raise damaged(corpus.path, REPORT, f"{corpus.num_rows[split]} rows of split {split!r} reported, but "
                          f"{self._ends[-1] if len(self._ends) else 0} found")
        self._token_type = token_dtype(corpus.vocab_size)
        sizes = {"tokens": corpus.length * self._token_type.itemsize, "next_sentence": 4,
                 **dict.fromkeys(UINT8_FEATURES, corpus.length)}
        try:
            self._frame = _Frame(self._read(0, [0])[0], sizes)
        except ValueError as error:
            raise damaged(corpus.path, self._files[0].name, f"holds no rows of this corpus ({error})") from None

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
          UserError: a file that has been damaged, or cut short or replaced since it was opened.
        """
        indices = np.asarray(indices, np.int64)
        if len(indices) and not (0 <= indices.min() and indices.max() < len(self)):
            raise IndexError(f"row numbers must lie in 0..{len(self) - 1}, not {indices.min()}..{indices.max()}")
        shard_of = np.searchsorted(self._ends, indices, "right")
        records = self._records(indices, shard_of)
        try:
            rows = self._frame.fields(records)
        except ValueError:
            for shard, record in zip(shard_of, records):
                self._check(shard, record)
            raise
        rows["tokens"] = rows["tokens"].view(self._token_type).astype(np.int32)
        rows["next_sentence"] = rows["next_sentence"].view(np.int32)[:, 0]
        return rows

    def _records(self, indices: np.ndarray, shard_of: np.ndarray) -> list[bytes]:
        records: list[bytes] = [b""] * len(indices)
        for shard in np.unique(shard_of).tolist():
            places = np.flatnonzero(shard_of == shard)
            first = int(self._ends[shard - 1]) if shard else 0
            for place, record in zip(places.tolist(), self._read(shard, (indices[places] - first).tolist())):
                records[place] = record
        return records

    def _read(self, shard: int, records: list[int]) -> list[bytes]:
        try:
            return self._readers[shard].read(records)
        except RuntimeError as error:
            reason = str(error).splitlines()[0].split(" (")[0].split(";")[0]
            raise damaged(self._path, self._files[shard].name, f"cannot be read ({reason})") from None

    def _check(self, shard: int, record: bytes) -> None:
        """A file cut short after it was opened gives empty records, one replaced gives any."""
        try:
            self._frame.places(record)
        except ValueError as error:
            raise damaged(self._path, self._files[shard].name,
                          f"cut short or replaced since it was opened ({error})") from None


class RowOrder:
    """Which rows make the batch of a step: a seeded permutation for each epoch, batches running on across epochs."""

    def __init__(self, num_rows: int, batch_size: int, seed: int, padding: int = 0):
        """Args: num_rows: of the split, may be below batch_size; batch_size: B; seed: of the permutations; padding: so
        many times -1 follow the row numbers of each batch."""
        import grain  # imports jax, which reading a corpus does not need

        self._batch_size, self._padding = batch_size, [-1] * padding
        self._order = grain.MapDataset.range(num_rows).seed(seed).shuffle().repeat()

    def indices(self, step: int) -> np.ndarray:
        """[B] int64 row numbers of the batch of a step, counted from 0; nothing but the four numbers decides them."""
        start = step * self._batch_size
        numbers = [self._order[i] for i in range(start, start + self._batch_size)]
        return np.array(numbers + self._padding, np.int64)


def batches(source: RowSource, indices: Callable[[int], np.ndarray], numbers: range,
            positions: np.ndarray | None = None) -> Iterator[NumberedBatch]:
    """Yields batches (number, row numbers [B], rows), reading ahead.

    Args:
      source: the rows.
      indices: from the number of a batch to its row numbers [B], such as `RowOrder.indices`.
      numbers: the batches to yield; no other is read.
      positions: [R] positions in a batch, ascending, of the rows to read and yield; None for all.

    Raises:
      UserError: as `RowSource.rows` does.
    """
    import grain

    options = grain.ReadOptions(num_threads=_READERS, prefetch_buffer_size=_BATCHES_AHEAD)
    read = functools.partial(_read, source, indices, slice(None) if positions is None else positions)
    yield from grain.MapDataset.range(numbers.start, numbers.stop).map(read).to_iter_dataset(options)


def _read(source: RowSource, indices: Callable[[int], np.ndarray], positions: np.ndarray | slice,
          number: int) -> NumberedBatch:
    row_numbers = indices(number)
    return number, row_numbers, source.rows(row_numbers[positions])


class _Frame:
    """Where the features lie in a serialised tf.train.Example of fixed-size bytes features.

    All rows of a corpus have the same frame around their payload, so a batch is cut up by slicing one matrix; rows
    whose frame differs (the format lets features come in any order) are parsed one by one.
    """

    def __init__(self, record: bytes, sizes: dict[str, int]):
        """Args: record: any row; sizes: bytes of each feature. Raises ValueError if they do not go together."""
        self._sizes = sizes
        self._places = self.places(record)
        self._size = len(record)
        outside = np.ones(len(record), bool)
        for name, start in self._places.items():
            outside[start:start + sizes[name]] = False
        self._outside = np.flatnonzero(outside)
        self._expected = np.frombuffer(record, np.uint8)[self._outside]

    def places(self, record: bytes) -> dict[str, int]:
        """Where each feature begins. Raises ValueError unless the record is a row with just these features."""
        places = feature_places(record)
        if {name: size for name, (_, size) in places.items()} != self._sizes:
            raise ValueError(f"a record of {len(record)} bytes that is no row")
        return {name: start for name, (start, _) in places.items()}

    def fields(self, records: list[bytes]) -> dict[str, np.ndarray]:
        """Returns [B, bytes] uint8 for each feature. Raises ValueError for a record that is no row."""
        if all(len(record) == self._size for record in records):
            matrix = np.frombuffer(b"".join(records), np.uint8).reshape(-1, self._size)
            if (matrix[:, self._outside] == self._expected).all():
                return {name: np.ascontiguousarray(matrix[:, start:start + self._sizes[name]])
                        for name, start in self._places.items()}
        found = [(record, self.places(record)) for record in records]
        return {name: np.stack([np.frombuffer(record, np.uint8, size, places[name]) for record, places in found])
                for name, size in self._sizes.items()}


def feature_places(record: bytes) -> dict[str, tuple[int, int]]:
    """(start, size) of the value of every one-value bytes feature in a serialised tf.train.Example.

    Example{features=1} -> Features{feature=1: map} -> {key=1, value=2} -> Feature{bytes_list=1} -> BytesList{value=1};
    every one of these fields is length-delimited.

    Raises:
      ValueError: the bytes are no such message.
    """
    places = {}
    (_, start, end), = _messages(record, 0, len(record))
    for _, entry_start, entry_end in _messages(record, start, end):
        parts = {number: (begin, stop) for number, begin, stop in _messages(record, entry_start, entry_end)}
        if not {1, 2} <= parts.keys():
            raise ValueError(f"a feature without name or value at byte {entry_start}")
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
        if start + size > end:
            raise ValueError(f"a field that ends at byte {start + size} of {end}")
        yield tag >> 3, start, start + size
        start += size


def _varint(record: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(record):
            raise ValueError(f"ends within a number at byte {at}")
        byte = record[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
