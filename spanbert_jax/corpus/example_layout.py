"""Serialized `tf.train.Example` records of fixed-size bytes features, read without TensorFlow."""
from collections.abc import Iterator

import numpy as np


class ExampleLayout:
    """Positions of the features in a record.

    All rows of a corpus have the same bytes around their features, so a batch is cut up by slicing one matrix. Rows
    with another layout (the format allows any order of the features) are parsed one by one.
    """

    def __init__(self, record: bytes, sizes: dict[str, int]):
        """Takes the layout of any row. Raises ValueError if it does not have features of these sizes in bytes."""
        self._sizes, self._record_size = sizes, len(record)
        self._starts = self.starts(record)
        outside = np.ones(len(record), bool)
        for name, start in self._starts.items():
            outside[start:start + sizes[name]] = False
        self._outside = np.flatnonzero(outside)
        self._expected = np.frombuffer(record, np.uint8)[self._outside]

    def starts(self, record: bytes) -> dict[str, int]:
        """Returns the offset of each feature. Raises ValueError unless the record has exactly these features."""
        positions = feature_positions(record)
        if {name: size for name, (_, size) in positions.items()} != self._sizes:
            raise ValueError(f"a record of {len(record)} bytes is not a row")
        return {name: start for name, (start, _) in positions.items()}

    def split(self, records: list[bytes]) -> dict[str, np.ndarray]:
        """Returns [B, bytes] uint8 for each feature. Raises ValueError for a record that is not a row."""
        if all(len(record) == self._record_size for record in records):
            matrix = np.frombuffer(b"".join(records), np.uint8).reshape(-1, self._record_size)
            if (matrix[:, self._outside] == self._expected).all():
                return {name: np.ascontiguousarray(matrix[:, start:start + self._sizes[name]])
                        for name, start in self._starts.items()}
        found = [(record, self.starts(record)) for record in records]
        return {name: np.stack([np.frombuffer(record, np.uint8, size, starts[name]) for record, starts in found])
                for name, size in self._sizes.items()}


def feature_positions(record: bytes) -> dict[str, tuple[int, int]]:
    """Returns (start, size) of the value of every one-value bytes feature in a serialized tf.train.Example.

    Example{features=1} -> Features{feature=1: map} -> {key=1, value=2} -> Feature{bytes_list=1} -> BytesList{value=1};
    each of these fields is length-delimited. Raises ValueError if the record is not such a message.
    """
    positions = {}
    (_, start, end), = _fields(record, 0, len(record))
    for _, entry_start, entry_end in _fields(record, start, end):
        parts = {number: (begin, stop) for number, begin, stop in _fields(record, entry_start, entry_end)}
        if not {1, 2} <= parts.keys():
            raise ValueError(f"a feature without name or value at byte {entry_start}")
        begin, stop = parts[2]
        for _ in range(2):  # down into the bytes list, then its value
            (_, begin, stop), = _fields(record, begin, stop)
        positions[record[slice(*parts[1])].decode()] = (begin, stop - begin)
    return positions


def _fields(record: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
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
    """Returns the number at byte `at`, and the offset after it."""
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
