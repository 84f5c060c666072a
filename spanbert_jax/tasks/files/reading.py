"""Files of examples: tables, JSON lines and JSON documents, gzipped or not, read one thing after the other."""
from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import ijson

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.corpus.sources import resolve_sources
from spanbert_jax.corpus.sources.files import decode_text, open_file
from spanbert_jax.corpus.sources.json_lines import parse_json_line, replace_surrogates
from spanbert_jax.corpus.sources.python_prose import PYTHON

_JSON_LINES = (".jsonl", ".jsonlines", ".ndjson")
_MOST_CHARACTERS = 1 << 27  # in a field of a table
_DEEPEST = 64  # levels of JSON in JSON


def is_json_lines(path: str) -> bool:
    """Whether a file's name says that each of its lines is JSON."""
    return path.lower().removesuffix(".gz").endswith(_JSON_LINES)


@contextlib.contextmanager
def _readable_errors(path: str) -> Iterator[None]:
    """Turns what reading a file may raise into a line."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: broken gzip file ({error}); fetch or write it again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def resolve_files(paths: str) -> list[str]:
    """The files of a list of files, folders and globs, separated by commas.

    Raises:
      UserError: when there is none.
    """
    named = [path.strip() for path in paths.split(",") if path.strip()]
    for name in named:
        if name == PYTHON or name.startswith("tfds:"):
            raise UserError(f"{name}: no file of examples; give files, folders or globs")
    return [file.path for file in resolve_sources(named, "documents")]


def file_fingerprints(paths: str) -> list[tuple[str, int, int]]:
    """Name, size and time of change of each file: equal stamps are taken for equal content."""
    return [(os.path.abspath(file), os.stat(file).st_size, os.stat(file).st_mtime_ns) for file in resolve_files(paths)]


def lines(path: str, issues: DataIssues) -> Iterator[tuple[int, str]]:
    """Yields the lines of a text file, numbered from 1, without their ends.

    Raises:
      UserError: when it cannot be read.
    """
    with _readable_errors(path), open_file(path, issues) as stream:
        for number, line in enumerate(_decoded(stream, path, issues), 1):
            yield number, line.rstrip("\n")


def _decoded(stream: Iterable[bytes], path: str, issues: DataIssues) -> Iterator[str]:
    """Yields lines; their carriage returns are counted once a file."""
    returns = False
    for data in stream:
        returns = returns or b"\r" in data
        # What came as a line is many where lines end in carriage returns alone.
        yield from io.StringIO(decode_text(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n"), path, issues))
    if returns:
        issues.add("files with carriage returns", path)


def json_lines(path: str, issues: DataIssues) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields "file:line" and the object of each line; blank lines are passed over.

    Raises:
      UserError: when the file cannot be read, or a line is no JSON object.
    """
    for number, line in lines(path, issues):
        if line.strip():
            location = f"{path}:{number}"
            try:
                yield location, replace_lone_surrogates(parse_json_line(line, location), location, issues)
            except RecursionError:
                raise UserError(f"{location}: not a JSON line (far too many levels deep); mend it") from None


def replace_lone_surrogates(value: Any, location: str, issues: DataIssues) -> Any:
    """What JSON held, its texts without half characters."""
    if isinstance(value, str):
        return replace_surrogates(value, location, issues)
    if isinstance(value, list):
        return [replace_lone_surrogates(entry, location, issues) for entry in value]
    if isinstance(value, dict):
        return {name: replace_lone_surrogates(entry, location, issues) for name, entry in value.items()}
    return value


def json_items(path: str, array: str, issues: DataIssues) -> Iterator[Any]:
    """Yields the entries of an array in a JSON document, holding one of them in memory at a time.

    Args:
      array: where it stands: "data" for {"data": [...]}, "" for a document that is an array.

    Raises:
      UserError: when the file cannot be read, is no JSON, or has no such array.
    """
    wanted, found = (array, "*") if array else ("*",), False
    for place, value in json_parts(path, [wanted], issues):
        found = found or len(place) == len(wanted) or value is BEGINS_ARRAY
        if len(place) == len(wanted):
            yield value
    if not found:
        shape = f'an object with an array "{array}"' if array else "an array"
        raise UserError(f"{path}: the JSON in it is not {shape}; is it of another format?")


# What `json_parts` gives of an object or an array that holds what is wanted, where it begins.
BEGINS_OBJECT, BEGINS_ARRAY = object(), object()


def json_parts(path: str, wanted: Sequence[Sequence[str]],
               issues: DataIssues) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yields place and value of the parts of a JSON document that are wanted, holding one of them in memory at a time.

    What stands on the way to them comes too, where it begins: BEGINS_OBJECT or BEGINS_ARRAY, or what else is there.

    Args:
      wanted: places of parts: keys from the outermost inwards; "*" is any entry of an array. ("data", "*", "title") is
        the title of each entry of the array "data".

    Raises:
      UserError: when the file cannot be read, or is no JSON.
    """
    with _readable_errors(path), open_file(path, issues) as stream:
        try:
            for place, value in _parts(ijson.basic_parse(stream, use_float=True), wanted):
                yield place, replace_lone_surrogates(value, path, issues)
        except (ijson.JSONError, UnicodeDecodeError, _TooDeep) as error:
            raise UserError(f"{path}: not JSON ({_explain(path, issues) or ' '.join(str(error).split())}); fetch or "
                            "write it again") from None


class _TooDeep(Exception):
    """JSON so deep in other JSON that it is damaged, or meant to do damage."""


def _parts(events: Iterable[tuple[str, Any]],
           wanted: Sequence[Sequence[str]]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    begins = {"start_map": BEGINS_OBJECT, "start_array": BEGINS_ARRAY}
    keys: list[str | int] = []  # of what is open: the key or the number of the entry that has come last
    builder, inside = None, 0  # of the part that is being read, and how many of its containers are open
    for event, value in events:
        ends = event in ("end_map", "end_array")
        if event == "map_key":
            keys[-1] = value
        elif not ends and keys and isinstance(keys[-1], int):
            keys[-1] += 1
        if builder is None and not ends and event != "map_key":
            if any(len(keys) == len(place) and _is_on_the_way(keys, place) for place in wanted):
                builder = ijson.ObjectBuilder()
            elif any(_is_on_the_way(keys, place) for place in wanted):
                yield tuple(keys), begins.get(event, value)
        if builder is not None:
            builder.event(event, value)
        if event in begins:
            keys.append("" if event == "start_map" else -1)
            inside += builder is not None
            if len(keys) > _DEEPEST:
                raise _TooDeep(f"more than {_DEEPEST} levels deep")
        elif ends:
            keys.pop()
            inside -= builder is not None
        if builder is not None and not inside and event != "map_key":
            yield tuple(keys), builder.value
            builder = None


def _is_on_the_way(keys: Sequence[str | int], place: Sequence[str]) -> bool:
    return len(keys) <= len(place) and all(
        isinstance(key, int) if name == "*" else key == name for key, name in zip(keys, place))


def _explain(path: str, issues: DataIssues) -> str:
    """Line and column of what is wrong, which the reader of streams does not tell."""
    try:
        with open_file(path, issues) as stream:
            json.loads(stream.read())
    except RecursionError:
        return f"more than {_DEEPEST} levels deep"
    except ValueError as error:
        return " ".join(str(error).split())
    return ""


def table(path: str, issues: DataIssues, names: Iterable[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields "file:line" and the fields by name of each row of a table.

    A file whose name ends in .tsv or .txt has tabs between fields, and quotes mean nothing, as in GLUE; one in JSON has
    an object a line, or all in an array; any other is CSV, where quotes hold a field together.

    Args:
      names: of the columns, in a file whose first line does not give them.

    Raises:
      UserError: when the file cannot be read, a row has more or fewer fields than there are columns, or two columns
        have one name.
    """
    kind = path.lower().removesuffix(".gz")
    if is_json_lines(path) or kind.endswith(".json") and first_character(path) != "[":
        yield from json_lines(path, issues)
    elif kind.endswith(".json"):
        for number, record in enumerate(json_items(path, "", issues), 1):
            if not isinstance(record, dict):
                raise UserError(f"{path}: record {number} is {record!r:.80}; give each its fields by name")
            yield f"{path}:{number}", record
    else:
        yield from _delimited(path, issues, list(names), tabs=kind.endswith((".tsv", ".txt")))


def _delimited(path: str, issues: DataIssues, columns: list[str], tabs: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(_MOST_CHARACTERS)
    with _readable_errors(path), open_file(path, issues) as stream:
        rows = csv.reader(_decoded(stream, path, issues), delimiter="\t" if tabs else ",",
                          quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL, strict=not tabs)
        end = 0
        try:
            for row in rows:
                location, end = f"{path}:{end + 1}", rows.line_num
                if not row:
                    issues.add("blank lines passed over", location)
                elif not columns:
                    columns = [name.strip() for name in row]
                    if len(set(columns)) < len(columns):
                        raise UserError(f"{location}: two columns of one name ({', '.join(columns)}); rename one")
                elif len(row) != len(columns):
                    raise UserError(f"{location}: {len(row)} fields where there are {len(columns)} columns "
                                    f"({', '.join(columns)}); mend the line")
                else:
                    yield location, dict(zip(columns, row))
        except csv.Error as error:
            raise UserError(f"{path}:{end + 1}: {error}; mend the line, or write it as JSON lines") from None


def first_character(path: str) -> str:
    """The first of a file that is not white space; a line break where there is none, or it cannot be read.

    The error is left to whoever then reads the file.
    """
    try:
        with open_file(path, DataIssues()) as stream:
            while block := stream.read(1024):
                if block.strip():
                    return block.strip()[:1].decode(errors="replace")
    except (OSError, EOFError, zlib.error):
        pass
    return "\n"


def field(record: Mapping[str, Any], name: str, location: str, kind: type | tuple[type, ...] = str) -> Any:
    """A field of a record.

    Raises:
      UserError: when it is missing or of another type.
    """
    if name not in record:
        raise UserError(f"{location}: no field {name!r}; there are {', '.join(map(repr, record)) or 'none':.300}")
    value = record[name]
    if not isinstance(value, kind) or isinstance(value, bool) and kind is not bool:
        wanted = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise UserError(f"{location}: field {name!r} is {value!r}, which is not of type {wanted}"[:300])
    return value


def name_field(record: dict[str, Any], column: str, location: str) -> str:
    """A field that names something: a text or a whole number.

    Raises:
      UserError: when it is missing or of another type.
    """
    return str(field(record, column, location, (str, int)))


class IdReader:
    """Names of the examples of a file; line numbers where there is no column of them. None is given twice where the
    file is labelled; for files of any size there is no room to remember them."""

    def __init__(self, column: str, optional: bool, unique: bool):
        self._column, self._optional, self._unique = column, optional, unique
        self._lines: dict[int, str] = {}  # by the hash of the id, which is shorter than some ids

    def __call__(self, record: dict[str, Any], location: str) -> str:
        path, _, line = location.rpartition(":")
        if not self._column or self._optional and self._column not in record:
            return line
        id = name_field(record, self._column, location)
        if self._unique and (first := self._lines.setdefault(hash(id), line)) != line:
            raise UserError(f"{location}: id {id!r} is that of {path}:{first} already; give each example its own")
        return id
