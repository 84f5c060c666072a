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
from spanbert_jax.corpus.sources.files import open_file, text_lines

_MOST_CHARACTERS = 1 << 27  # per field
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
    csv.field_size_limit(_MOST_CHARACTERS)
    with open_file(path, issues) as stream:
        rows = csv.reader(text_lines(stream, path, issues), delimiter="\t" if tabs else ",",
                          quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL, strict=not tabs)
        columns, end, empty, header = list(names), 0, True, ""
        try:
            for row in rows:
                line, end = end + 1, rows.line_num
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


def _read(file: SourceFile, fields: FieldNames, issues: DataIssues) -> Iterator[Document]:
    check = functools.partial(fields.text_of, issues=issues)
    for line, row in table_rows(file.path, file.format == "tsv", issues, check=check):
        text = fields.text_of(row, f"{file.path}:{line}", issues)
        if text is not None:
            yield from split_document(Document(text, file.path, line, ()), issues)


CSV = CorpusFormat(_read, (".csv",))
TSV = CorpusFormat(_read, (".tsv",))
