"""Reads tables, JSON lines and JSON documents, compressed or not, one record at a time."""
import contextlib
import dataclasses
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, TypeVar

import ijson

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.json_files import MAX_DEPTH, MAX_VALUES
from spanbert_jax.common.paths import split_paths
from spanbert_jax.corpus.sources import resolve_sources
from spanbert_jax.corpus.sources.files import (
    MAX_RECORD_BYTES,
    first_characters,
    open_file,
    text_lines,
    without_compression,
)
from spanbert_jax.corpus.sources.json_lines import parse_json_line, replace_surrogates
from spanbert_jax.corpus.sources.python_prose import PYTHON
from spanbert_jax.corpus.sources.tables import RowCheck, table_rows

_JSON_ENDINGS = (".jsonl", ".jsonlines", ".ndjson", ".json")
_STRING = r'"(?:[^"\\\n]|\\.)*+"\s*'
# Objects, or an array of objects or texts, or one without entries.
_JSON_START = re.compile(rf"\[?\s*\{{\s*(?:{_STRING}:|\}})|\[\s*{_STRING}[],]|\[\s*\]\s*$")
_MAX_EXPLAINED_BYTES = MAX_RECORD_BYTES // 2  # whose values may take 25 times as much memory
_BRACKETS = {"-lrb-": "(", "-rrb-": ")", "-lsb-": "[", "-rsb-": "]", "-lcb-": "{", "-rcb-": "}"}  # in treebanks
_BUFFER_BYTES = 4 << 20  # read at once: the parser begins a text again whenever it needs more


@dataclasses.dataclass(frozen=True)
class Example:
    """The input of one prediction; each task has its own subclass."""
    id: str  # its name in prediction files
    location: str  # the file, a colon, and line or record in it, for messages
    group: str  # document or article it comes from: held-out parts share no group with the training examples


E = TypeVar("E", bound=Example)


def file_of(example: Example) -> str:
    """The file that an example comes from; a task's own class of examples needs the field `location` only."""
    return example.location.rpartition(":")[0]


def describe_location(example: Example) -> str:
    """Location and id of an example, for counts of data issues."""
    return f"{example.location} (id {example.id!r})"


def is_json(path: str) -> bool:
    """Whether a file is JSON lines or a JSON document, by its name or by its first characters."""
    return without_compression(path).lower().endswith(_JSON_ENDINGS) or bool(_JSON_START.match(first_characters(path)))


def resolve_files(paths: str) -> list[str]:
    """The files of a comma-separated list of files, folders and globs. Raises UserError if there is none."""
    named = split_paths(paths)
    for name in named:
        if name == PYTHON or name.startswith("tfds:"):
            raise UserError(f"{name}: contains no examples; give files, folders or globs")
    return [file.path for file in resolve_sources(named, "documents")]


def lines(path: str, issues: DataIssues) -> Iterator[tuple[int, str]]:
    """Yields line numbers, from 1, and lines of a text file without line ends. Raises UserError if it is unreadable."""
    number = 0
    with open_file(path, issues) as stream:
        for number, line in enumerate(text_lines(stream, path, issues), 1):
            yield number, line.rstrip("\n")
    if not number:
        issues.add("empty files", path)


def json_lines(path: str, issues: DataIssues) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields "file:line" and the object of each line but blank ones. Raises UserError if a line is not an object."""
    for number, line in lines(path, issues):
        if line.strip():
            location = f"{path}:{number}"
            yield location, replace_lone_surrogates(parse_json_line(line, location), location, issues)


def replace_lone_surrogates(value: Any, location: str, issues: DataIssues, depth: int = 0) -> Any:
    """A JSON value with lone surrogates in its texts replaced. Raises UserError if it is nested too deeply."""
    if isinstance(value, str):
        return replace_surrogates(value, location, issues)
    if depth == MAX_DEPTH and isinstance(value, (list, tuple, dict)):
        raise UserError(f"{location}: nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, (list, tuple)):
        return [replace_lone_surrogates(entry, location, issues, depth + 1) for entry in value]
    if isinstance(value, dict):
        return {name: replace_lone_surrogates(entry, location, issues, depth + 1) for name, entry in value.items()}
    return value


def json_items(path: str, array: str, issues: DataIssues) -> Iterator[Any]:
    """Yields the entries of an array in a JSON document, one in memory at a time.

    Args:
      array: its key: "data" for {"data": [...]}, "" for a document that is an array.

    Raises:
      UserError: the file cannot be read, is not JSON, or has no such array.
    """
    wanted, found = (array, "*") if array else ("*",), False
    for place, value in json_parts(path, [wanted], issues):
        found = found or len(place) == len(wanted) or value is BEGINS_ARRAY
        if len(place) == len(wanted):
            yield value
    if not found:
        shape = f'an object with an array "{array}"' if array else "an array"
        raise UserError(f"{path}: its JSON is not {shape}; is it in another format?")


def numbered_json_items(path: str, array: str, issues: DataIssues) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields "file:number", from 1, and each entry of an array, as `json_items`; all must be objects."""
    for number, record in enumerate(json_items(path, array, issues), 1):
        if not isinstance(record, dict):
            raise UserError(f"{path}: record {number} is {record!r:.80}; it must be an object")
        yield f"{path}:{number}", record


def json_records(path: str, issues: DataIssues) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields "file:number" and fields of each object of a JSON file: an object per line, or an array of objects."""
    is_array = first_characters(path).startswith("[")
    return numbered_json_items(path, "", issues) if is_array else json_lines(path, issues)


def first_keys(path: str, place: str = "") -> Iterator[str]:
    """Yields the keys of the first JSON object in a file, one at a time, to tell its layout.

    Nothing follows an error: the function that then reads the file reports it.

    Args:
      place: of the object in ijson's notation: "" for the outermost, "data.item" for the first entry of "data".
    """
    with contextlib.suppress(UserError, ijson.JSONError, UnicodeDecodeError), open_file(path, DataIssues()) as stream:
        for prefix, event, value in ijson.parse(_LimitedParts(stream, path), multiple_values=True,
                                                 buf_size=_BUFFER_BYTES):
            if prefix == place and event == "end_map":
                break
            if prefix == place and event == "map_key":
                yield value


# Values of `json_parts` at the start of an object or array that contains wanted parts.
BEGINS_OBJECT, BEGINS_ARRAY = object(), object()


def json_parts(path: str, wanted: Sequence[Sequence[str]],
               issues: DataIssues) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yields path and value of wanted parts of a JSON document, one in memory at a time.

    Values on the way to them are yielded too, at their start: BEGINS_OBJECT, BEGINS_ARRAY or a scalar.

    Args:
      wanted: paths of parts: keys from the outermost inwards; "*" is any entry of an array. ("data", "*", "title") is
        the title of each entry of the array "data".

    Raises:
      UserError: the file cannot be read, or is not JSON.
    """
    with open_file(path, issues) as stream:
        try:
            limited = _LimitedParts(stream, path)
            for place, value in _parts(ijson.basic_parse(limited, buf_size=_BUFFER_BYTES, use_float=True),
                                       wanted, limited):
                yield place, replace_lone_surrogates(value, path, issues)
        except (ijson.JSONError, UnicodeDecodeError, _BeyondLimits) as error:
            why = "" if isinstance(error, _BeyondLimits) else _explain(path, issues)
            raise UserError(f"{path}: not JSON ({why or ' '.join(str(error).split())}); fetch or write it "
                            "again") from None


class _BeyondLimits(Exception):
    """JSON of so many levels or values that it is damaged or malicious."""


class _LimitedParts:
    """A stream of which not too much is read for one part of its JSON; `size` is set to 0 after each part."""

    def __init__(self, stream: IO[bytes], path: str):
        self._stream, self._path, self.size = stream, path, 0

    def read(self, count: int) -> bytes:
        """The next bytes. Raises UserError if they are too many for one part."""
        data = self._stream.read(count)
        self.size += len(data)
        if self.size > MAX_RECORD_BYTES:
            raise UserError(f"{self._path}: a part of its JSON has more than {MAX_RECORD_BYTES >> 20} MiB; divide it")
        return data


def _parts(events: Iterable[tuple[str, Any]], wanted: Sequence[Sequence[str]],
           limited: _LimitedParts) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    begins = {"start_map": BEGINS_OBJECT, "start_array": BEGINS_ARRAY}
    keys: list[str | int] = []  # for each open container, the key or index of its last entry
    # Of the current part: what builds it, the number of its open containers, and of its values and keys.
    builder, inside, values = None, 0, 0
    for event, value in events:
        if builder is None:
            limited.size = 0
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
            values += not ends
            if values > MAX_VALUES:
                raise _BeyondLimits(f"a part of more than {MAX_VALUES:,} values, which are the most")
        if event in begins:
            keys.append("" if event == "start_map" else -1)
            inside += builder is not None
            if len(keys) > MAX_DEPTH:
                raise _BeyondLimits(f"nested more than {MAX_DEPTH} levels deep")
        elif ends:
            keys.pop()
            inside -= builder is not None
        if builder is not None and not inside and event != "map_key":
            yield tuple(keys), builder.value
            builder, values = None, 0


def _is_on_the_way(keys: Sequence[str | int], place: Sequence[str]) -> bool:
    return len(keys) <= len(place) and all(
        isinstance(key, int) if name == "*" else key == name for key, name in zip(keys, place))


def _explain(path: str, issues: DataIssues) -> str:
    """Line and column of an error, which the streaming parser does not report."""
    try:
        with open_file(path, issues) as stream:
            content = stream.read(_MAX_EXPLAINED_BYTES + 1)
            if len(content) <= _MAX_EXPLAINED_BYTES:
                json.loads(content)
    except RecursionError:
        return f"nested more than {MAX_DEPTH} levels deep"
    except ValueError as error:
        return " ".join(str(error).split())
    return ""


def table(path: str, issues: DataIssues, names: Iterable[str] = (),
          check: RowCheck = lambda row, place: None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields "file:line" and the fields by name of each row of a table.

    JSON files, see `is_json`, are those of `json_records`. Files named .tsv and .txt have tabs between fields and no
    quoting, as in GLUE; so have those without a known ending if their first line has a tab. All others are CSV with
    quoting.

    Args:
      names: of the columns, for a file without a header line.
      check: of an empty row; it is called for a table without rows, whose columns could be wrong too.

    Raises:
      UserError: the file cannot be read, a row has more or fewer fields than there are columns, or two columns have the
        same name.
    """
    if is_json(path):
        yield from json_records(path, issues)
    else:
        for line, row in table_rows(path, _has_tabs(path), issues, list(names), check):
            yield f"{path}:{line}", row


def _has_tabs(path: str) -> bool:
    ending = os.path.splitext(without_compression(path))[1].lower()
    return ending in (".tsv", ".txt") or (ending != ".csv" and "\t" in first_characters(path).partition("\n")[0])


def field(record: Mapping[str, Any], name: str, location: str, kind: type | tuple[type, ...] = str) -> Any:
    """A field of a record. Raises UserError if it is missing or of another type."""
    if name not in record:
        raise UserError(f"{location}: no field {name!r}; there are {', '.join(map(repr, record)) or 'none':.300}")
    value = record[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise UserError(f"{location}: field {name!r} is {value!r}, which is not of type {wanted}"[:300])
    return value


def name_field(record: Mapping[str, Any], column: str, location: str) -> str:
    """A field with a name: a text or an integer. Raises UserError if it is missing or of another type."""
    return str(field(record, column, location, (str, int)))


def without_escapes(word: str) -> str:
    """A word of a treebank, with a bracket in place of -LRB- and the like."""
    return _BRACKETS.get(word.lower(), word)


def number_repeats(examples: Iterable[E], issues: DataIssues) -> Iterator[E]:
    """Puts a number after ids that occur earlier and counts them; only hashes are kept in memory."""
    counts: Counter[int] = Counter()
    for example in examples:
        first = id = example.id
        while counts[hash(id)]:
            counts[hash(first)] += 1
            id = f"{first}-{counts[hash(first)]}"
        counts[hash(id)] += 1
        if id != first:
            issues.add("examples with the id of an earlier one, numbered", f"{example.location} (id {first} is {id})")
            example = dataclasses.replace(example, id=id)
        yield example


class IdReader:
    """Reads the ids of a file's examples. If no column is named, they are in "id", or else line numbers.

    Ids of a named column are checked for duplicates in files with labels; files to predict may be too large to remember
    all ids.
    """

    def __init__(self, column: str, optional: bool, unique: bool):
        self._column, self._optional, self._unique = column, optional, unique
        self._lines: dict[int, str] = {}  # by hash, which is shorter than some ids

    def __call__(self, record: Mapping[str, Any], location: str) -> str:
        path, _, line = location.rpartition(":")
        if not self._column:
            found = record.get("id")
            usable = isinstance(found, (str, int)) and not isinstance(found, bool) and str(found).strip()
            return str(found) if usable else line
        if self._optional and self._column not in record:
            return line
        id = name_field(record, self._column, location)
        if self._unique and (first := self._lines.setdefault(hash(id), line)) != line:
            raise UserError(f"{location}: id {id!r} occurs also at {path}:{first}; give each example its own")
        return id
