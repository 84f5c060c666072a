"""Predictions joined with the records of their inputs, and written as tables."""
import csv
import io
import itertools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import publish, temporary_file
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files.reading import Example, table

ALL_FIELDS = "all"
_MOST_CELLS, _FREE_CELLS = 100, 10_000_000  # of a table, for each that is not empty; and of any table


class InputFields:
    """Fields of the records that examples were read from: rows of tables, or objects of JSON lines."""

    def __init__(self, files: Sequence[str], columns: Sequence[str], keep: str):
        """Reads nothing yet.

        Args:
          files: that the examples come from, in their order.
          columns: names of the columns of tables without a header line.
          keep: names of the fields, separated by commas, or `ALL_FIELDS`.
        """
        self._files, self._columns = files, columns
        self._records = self._read()
        self._latest: tuple[str, dict[str, Any]] = ("", {})
        self._names = None if keep == ALL_FIELDS else [name.strip() for name in keep.split(",")]
        self._keep = keep

    def __call__(self, example: Example) -> dict[str, Any]:
        """The fields of an example by name; each call is for the same example as the last, or for a later one.

        A field is left out where a record lacks it. Raises UserError if no record has it, or if the example comes from
        a file of another kind.
        """
        first = not self._latest[0]
        try:
            while self._latest[0] != example.location:
                self._latest = next(self._records)
        except (StopIteration, UserError) as error:
            raise UserError(f"keep={self._keep!r}: only rows of tables and JSON lines have fields, and "
                            f"{example.location} is neither {str(error) and f'({error})'}".rstrip()) from None
        location, record = self._latest
        if self._names is None:
            return record
        for name in self._names if first else ():
            if not any(name in other for _, other in self._read()):
                raise UserError(f"{location}: no field {name!r} to keep; there are {', '.join(map(repr, record))}")
        return {name: record[name] for name in self._names if name in record}

    def _read(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return (pair for file in self._files for pair in table(file, DataIssues(), self._columns))


def is_table(output: pathlib.Path) -> bool:
    """Whether predictions are written as a table, by the name of their file."""
    return output.suffix.lower() in (".csv", ".tsv")


def write_table(lines: pathlib.Path, output: pathlib.Path) -> None:
    """Writes predictions, stored as JSON lines, as CSV, or as tabs without quoting if the name ends in .tsv.

    The columns are the fields of all predictions, in the order of their first appearance. A field within an object has
    a column such as "scores.red"; a list is written as JSON.

    Raises:
      FileExistsError: the output exists.
      UserError: almost all cells of a large table would be empty.
    """
    columns = _columns(lines, output)
    tabs = output.suffix.lower() == ".tsv"
    with temporary_file(output) as (new, file):
        text = io.TextIOWrapper(file, "utf-8", "backslashreplace", newline="", write_through=True)
        for row in itertools.chain([dict(zip(columns, columns))], _rows(lines)):
            cells = [row.get(name, "") for name in columns]
            if tabs:
                text.write("\t".join(" ".join(str(cell).split()) if cell is not None else "" for cell in cells) + "\n")
            else:  # csv does not quote carriage returns of its own accord
                returns = any(isinstance(cell, str) and "\r" in cell for cell in cells)
                csv.writer(text, quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL,
                           lineterminator="\n").writerow(cells)
        text.detach()
        file.flush()
        os.fsync(file.fileno())
        publish(new, output)


def _columns(lines: pathlib.Path, output: pathlib.Path) -> list[str]:
    """The columns of the table of predictions. Raises UserError if almost all cells would be empty."""
    columns, rows, filled = dict[str, None](), 0, 0
    for row in _rows(lines):
        columns.update(dict.fromkeys(row))
        rows, filled = rows + 1, filled + len(row)
    if rows * len(columns) > max(_FREE_CELLS, _MOST_CELLS * filled):
        raise UserError(f"{output}: a table of {len(columns):,} columns, almost all of them empty in each of its "
                        f"{rows:,} rows; keep fewer fields, or give a name that ends in .jsonl")
    return list(columns)


def _rows(lines: pathlib.Path) -> Iterator[dict[str, Any]]:
    with open(lines, encoding="utf-8") as file:
        for line in file:
            yield dict(_cells("", json.loads(line)))


def _cells(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _cells(f"{name}.{key}" if name else key, entry)
    else:
        yield name, json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
