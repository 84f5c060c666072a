"""What a corpus format consists of, and the description of one source."""
import dataclasses
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.identity import content_digest
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.corpus.documents import Document


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """One source to read."""
    path: str  # of the file, or NAME of a TFDS dataset
    format: str  # name of its `CorpusFormat`
    split: str = ""  # split of a TFDS dataset; empty for files
    name: str = ""  # name in reports, if not the path

    def stamp(self) -> tuple[str | int, ...]:
        """Returns what is equal only for equal content, without reading a file of the user.

        It has the time of the last change of status, which nobody can set.
        """
        if self.split:  # only TFDS can locate its many files: this stamp never repeats, so that the content is read
            return f"{self.path}:{self.split}", time.monotonic_ns()
        if self.name:  # a small file in the corpus, which is copied from one to the next
            return self.name, content_digest(self.path)
        status = os.stat(self.path)
        return os.path.abspath(self.path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@dataclasses.dataclass(frozen=True)
class FieldNames:
    """Names of the record fields that hold the text and, in JSON lines, the annotated units."""
    text: str = "text"
    annotations: str | None = None

    def text_of(self, record: Mapping[str, Any], place: str, issues: DataIssues) -> str | None:
        """The text of a record; None, which is counted, for a null. Raises UserError if it is missing or no text."""
        text = record.get(self.text)
        if text is None and self.text in record:
            issues.add("records whose text is null, left out", place)
        elif not isinstance(text, str):
            have = ", ".join(list(record)[:8])
            raise UserError(f"{place}: field {self.text!r} is {'missing' if text is None else 'not a text'} "
                            f"(fields here: {have}); name the text's field with --text-field")
        return text


@dataclasses.dataclass(frozen=True)
class CorpusFormat:
    """How the sources of one format are found and read."""
    # Yields the documents of a source in order and counts what it repaired or left out. It may raise OSError and the
    # errors of gzip; `read_documents` turns them into a UserError.
    read: Callable[[SourceFile, FieldNames, DataIssues], Iterator[Document]]
    suffixes: tuple[str, ...] = ()  # of file names, lower-case and not compressed, that select this format for "auto"
    # For files whose names have no suffix of any format: the first characters that select this format for "auto".
    start: re.Pattern[str] | None = None
    has_fields: bool = True  # whether `FieldNames` means something in this format
    # For sources that are not files; None for formats of files. From a source, such as "tfds:NAME", and the directory
    # for files that prepare generates, to the SourceFile if the source is of this format, else None.
    find: Callable[[str, pathlib.Path | None], SourceFile | None] | None = None
