"""Files of examples: tables, JSON lines and JSON documents, gzipped or not, read one thing after the other."""
from __future__ import annotations

import contextlib
import csv
import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import ijson

from spanbert_jax.corpus.documents import Faults
from spanbert_jax.corpus.readers import decode, open_file, parse_line, resolve, whole_characters
from spanbert_jax.errors import UserError

_JSON_LINES = (".jsonl", ".jsonlines", ".ndjson")
_MOST_CHARACTERS = 1 << 27  # in a field of a table


def is_json_lines(path: str) -> bool:
    """Whether a file's name says that each of its lines is JSON."""
    return path.lower().removesuffix(".gz").endswith(_JSON_LINES)


@contextlib.contextmanager
def _telling(path: str) -> Iterator[None]:
    """Turns what reading a file may raise into a line."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: broken gzip file ({error}); fetch or write it again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def files_of(paths: str) -> list[str]:
    """The files of a list of files, folders and globs, separated by commas.

    Raises:
      UserError: when there is none.
    """
    return [file.path for file in resolve([path.strip() for path in paths.split(",") if path.strip()], "documents")]


def stamps(paths: str) -> list[tuple[str, int, int]]:
    """Name, size and time of change of each file: equal stamps are taken for equal content."""
    return [(os.path.abspath(file), os.stat(file).st_size, os.stat(file).st_mtime_ns) for file in files_of(paths)]


def lines(path: str, faults: Faults) -> Iterator[tuple[int, str]]:
    """Yields the lines of a text file, numbered from 1, without their ends.

    Raises:
      UserError: when it cannot be read.
    """
    with _telling(path), open_file(path, faults) as stream:
        for number, data in enumerate(stream, 1):
            yield number, decode(data, path, faults).rstrip("\n")


def json_lines(path: str, faults: Faults) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields "file:line" and the object of each line; blank lines are passed over.

    Raises:
      UserError: when the file cannot be read, or a line is no JSON object.
    """
    for number, line in lines(path, faults):
        if line.strip():
            where = f"{path}:{number}"
            yield where, whole(parse_line(line, where), where, faults)


def whole(value: Any, where: str, faults: Faults) -> Any:
    """What JSON held, its texts without half characters."""
    if isinstance(value, str):
        return whole_characters(value, where, faults)
    if isinstance(value, list):
        return [whole(entry, where, faults) for entry in value]
    if isinstance(value, dict):
        return {name: whole(entry, where, faults) for name, entry in value.items()}
    return value


def json_items(path: str, array: str, faults: Faults) -> Iterator[Any]:
    """Yields the entries of an array in a JSON document, holding one of them in memory at a time.

    Args:
      array: where it stands: "data" for {"data": [...]}, "" for a document that is an array.

    Raises:
      UserError: when the file cannot be read, is no JSON, or has no such array.
    """
    found = False
    with _telling(path), open_file(path, faults) as stream:
        try:
            for item in ijson.items(stream, f"{array}.item" if array else "item", use_float=True):
                found = True
                yield whole(item, path, faults)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not JSON ({_explain(path, faults) or error}); fetch or write it again") from None
    if not found and not _has_array(path, array, faults):
        shape = f'an object with an array "{array}"' if array else "an array"
        raise UserError(f"{path}: the JSON in it is not {shape}; is it of another format?")


def _explain(path: str, faults: Faults) -> str:
    """Line and column of what is wrong, which the reader of streams does not tell."""
    with open_file(path, faults) as stream:
        try:
            json.loads(stream.read())
        except ValueError as error:
            return str(error)
    return ""


def _has_array(path: str, array: str, faults: Faults) -> bool:
    with open_file(path, faults) as stream:
        return any((prefix, event) == (array, "start_array") for prefix, event, _ in ijson.parse(stream))


def table(path: str, faults: Faults, names: Iterable[str] = (), delimiter: str | None = None,
          quoting: bool | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields "file:line" and the fields by name of each row of a CSV, TSV or JSON lines file.

    Args:
      names: of the columns, in a file whose first line does not give them.
      delimiter: a tab where the file's name ends in .tsv or .txt, else a comma, if not given.
      quoting: whether quotes hold a field together; if not given, they do in CSV and do not in TSV, as in GLUE.

    Raises:
      UserError: when the file cannot be read, or a row has more or fewer fields than there are columns.
    """
    if is_json_lines(path):
        yield from json_lines(path, faults)
        return
    if delimiter is None:
        delimiter = "\t" if path.lower().removesuffix(".gz").endswith((".tsv", ".txt")) else ","
    quoting = delimiter != "\t" if quoting is None else quoting
    csv.field_size_limit(_MOST_CHARACTERS)
    with _telling(path), open_file(path, faults) as stream:
        text = (decode(line, path, faults) for line in stream)
        rows = csv.reader(text, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE,
                          strict=quoting)
        columns, end = list(names), 0
        try:
            for row in rows:
                where, end = f"{path}:{end + 1}", rows.line_num
                if not row:
                    faults.add("blank lines passed over", where)
                    continue
                if not columns:
                    columns = [name.strip() for name in row]
                    continue
                if len(row) != len(columns):
                    raise UserError(f"{where}: {len(row)} fields where there are {len(columns)} columns "
                                    f"({', '.join(columns)}); mend the line")
                yield where, dict(zip(columns, row))
        except csv.Error as error:
            raise UserError(f"{path}:{end + 1}: {error}; mend the line, or write it as JSON lines") from None


def field(record: dict[str, Any], name: str, where: str, kind: type | tuple[type, ...] = str) -> Any:
    """A field of a record.

    Raises:
      UserError: when it is missing or of another type.
    """
    if name not in record:
        raise UserError(f"{where}: no field {name!r}; there are {', '.join(map(repr, record)) or 'none'}")
    value = record[name]
    if not isinstance(value, kind) or isinstance(value, bool) and kind is not bool:
        wanted = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise UserError(f"{where}: field {name!r} is {value!r}, which is not of type {wanted}"[:300])
    return value
