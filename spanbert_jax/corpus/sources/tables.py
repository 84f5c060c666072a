"""Formats "csv" and "tsv": tables whose first line has the names of the columns."""
import csv
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.corpus.documents import Document, split_document
from spanbert_jax.corpus.sources.base import CorpusFormat, FieldNames, SourceFile
from spanbert_jax.corpus.sources.files import MAX_RECORD_BYTES, open_file, text_lines

_LINE_COST = 64  # of a line in a quoted field, in characters that take as long
RowCheck = Callable[[dict[str, Any], str], object]  # raises UserError for a row, at a place, that lacks a column


def table_rows(path: str, tabs: bool, issues: DataIssues, names: Sequence[str] = (),
               check: RowCheck = lambda row, place: None) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the line number, from 1, and the fields by name of each row of a table.

    Args:
      tabs: fields are separated by tabs without quoting, as in GLUE; else by commas with quoting.
      names: of the columns, for a table without a header line.
      check: called with an empty row for a table that has only a header line.

    Raises:
      UserError: the file cannot be read, a row has more or fewer fields than there are columns, or two columns have the
        same name.
    """
    csv.field_size_limit(MAX_RECORD_BYTES)
    with open_file(path, issues) as stream:
        lines = _LimitedRows(text_lines(stream, path, issues), path)
        rows = csv.reader(lines, delimiter="\t" if tabs else ",",
                          quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL, strict=not tabs)
        columns, end, empty, header = list(names), 0, True, ""
        try:
            for row in rows:
                line, end, lines.size = end + 1, rows.line_num, 0
                if not row:
                    issues.add("blank lines skipped", f"{path}:{line}")
                elif not columns:
                    columns, header = [name.strip() for name in row], f"{path}:{line}"
                    if len(set(columns)) < len(columns):
                        raise UserError(f"{path}:{line}: two columns have the same name ({', '.join(columns)}); rename "
                                        "one")
                elif len(row) != len(columns):
                    raise UserError(f"{path}:{line}: {format_plural(len(row), 'field')}, but "
                                    f"{format_plural(len(columns), 'column')} ({', '.join(columns)}); fix the line")
                else:
                    empty = False
                    yield line, dict(zip(columns, row))
        except csv.Error as error:
            raise UserError(f"{path}:{end + 1}: {error}; fix the line, or write JSON lines") from None
        if empty:
            if header:
                check(dict.fromkeys(columns, ""), header)
            issues.add("empty files", path)


class _LimitedRows:
    """The lines of a table, whose rows must not be too long; `size` is set to 0 after each row."""

    def __init__(self, lines: Iterator[str], path: str):
        self._lines, self._path, self.size = enumerate(lines, 1), path, 0

    def __iter__(self) -> Iterator[str]:
        for number, line in self._lines:
            self.size += _LINE_COST + len(line)
            if self.size > MAX_RECORD_BYTES:
                raise UserError(f"{self._path}:{number}: a row of more than {MAX_RECORD_BYTES >> 20} million "
                                "characters; is a quotation mark missing?")
            yield line


def _read(file: SourceFile, fields: FieldNames, issues: DataIssues) -> Iterator[Document]:
    check = functools.partial(fields.text_of, issues=issues)
    for line, row in table_rows(file.path, file.format == "tsv", issues, check=check):
        text = fields.text_of(row, f"{file.path}:{line}", issues)
        if text is not None:
            yield from split_document(Document(text, file.path, line, ()), issues)


CSV = CorpusFormat(_read, (".csv",))
TSV = CorpusFormat(_read, (".tsv",))
