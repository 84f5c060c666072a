"""A file of whole records of metrics that survives full disks and vanished folders."""
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from spanbert_jax.common.directories import make_own_directory

Metrics = Mapping[str, Any]  # by name: numbers, texts, None for a number that is not finite, or lists of these


class RecordFile:
    """Appends records to a file. A failed flush leaves no partial record, and the next one writes it again.

    The file is opened for each flush, because its folder may vanish and come back.
    """

    def __init__(self, path: pathlib.Path, records: Iterable[bytes] = (), kept: int = 0, header: bytes = b"",
                 create_folder: bool = False):
        """Writes nothing yet.

        Args:
          records: of the first flush.
          kept: bytes at the start of an existing file that stay; a flush cuts off whatever else it holds.
          header: written first whenever the file is created.
          create_folder: create the file's folder with it.
        """
        self._path, self._header, self._create_folder = path, header, create_folder
        self._end, self._pending = kept, list(records)

    def append(self, record: bytes) -> None:
        """Adds a record to the next flush."""
        self._pending.append(record)

    def flush(self) -> None:
        """Writes the pending records. Raises OSError if the file cannot be written; the records stay pending."""
        if self._create_folder:
            make_own_directory(self._path.parent, parents=False)
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            end = min(self._end, os.fstat(file).st_size)
            data = b"".join([self._header] * (end == 0) + self._pending)
            os.ftruncate(file, end)  # to the end of the last whole record
            try:
                written = 0
                while written < len(data):
                    written += os.pwrite(file, data[written:], end + written)
            except OSError:
                os.ftruncate(file, end)
                raise
        finally:
            os.close(file)  # network file systems report failed writes here
        self._end = end + len(data)
        self._pending.clear()
