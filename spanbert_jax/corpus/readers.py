"""Sources to documents: plain text in three layouts, JSON lines, gzip of either, TFDS datasets."""
import contextlib
import dataclasses
import glob
import gzip
import json
import os
import pathlib
import re
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.corpus.documents import MAX_DOCUMENT_CHARACTERS, Document, cut_point, divide

FORMATS = ("auto", "documents", "blank-lines", "sentences", "jsonl")
PYTHON = "python"
_TFDS = "tfds:"
_JSON_SUFFIXES = (".jsonl", ".jsonlines", ".ndjson", ".json")
_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*+\n)++")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NAME_AND_SPLIT = re.compile(r"(.+?)(?::([A-Za-z_]\w*(?:\[[^\]]*\])?))?")  # NAME may end in :VERSION


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """One thing to read: a path and its format, or a TFDS dataset (`path` = NAME, `split` set).

    `name` is what reports call it where the path would not help.
    """
    path: str
    format: str
    split: str = ""
    name: str = ""

    def stamp(self) -> tuple[str, int, int]:
        """Name, size in bytes and time of change: equal stamps are taken for equal content.

        A TFDS dataset is many files in a place that TFDS knows, so its stamp never repeats and its content is read.
        """
        if self.split:
            return f"{self.path}:{self.split}", 0, time.monotonic_ns()
        status = os.stat(self.path)
        return self.name or os.path.abspath(self.path), status.st_size, status.st_mtime_ns


@dataclasses.dataclass(frozen=True)
class Fields:
    """Names of the fields that hold the text and, in JSON lines, the annotated units."""
    text: str = "text"
    annotations: str | None = None


def resolve(sources: Sequence[str], format: str, python_file: pathlib.Path | None = None) -> list[SourceFile]:
    """Expands files, directories (all files below, hidden ones left out), globs, `python` and `tfds:NAME[:split]`.

    Args:
      sources: as the user gave them; files of a directory or glob come in sorted order.
      format: one of FORMATS.
      python_file: where the prose of the `python` source lies.

    Raises:
      UserError: unknown format, nothing there, or no file matches.
    """
    if format not in FORMATS:
        raise UserError(f"format is {format!r}: it must be one of {', '.join(FORMATS)}")
    if not sources:
        raise UserError("no source given: name a file, a directory, a glob, 'python' or 'tfds:NAME'")
    files = []
    for source in sources:
        if source == PYTHON:
            files.append(SourceFile(str(python_file), "jsonl", name=PYTHON))
        elif source.startswith(_TFDS):
            parts = _NAME_AND_SPLIT.fullmatch(source.removeprefix(_TFDS))
            if not parts:
                raise UserError(f"source {source!r}: give tfds:NAME or tfds:NAME:SPLIT")
            files.append(SourceFile(parts[1], "tfds", parts[2] or "train"))
        else:
            files.extend(SourceFile(path, _format_of(path, format)) for path in _paths(source))
    return files


def read_documents(file: SourceFile, fields: Fields, faults: DataIssues) -> Iterator[Document]:
    """Yields the documents of one source in order, counting in `faults` what had to be mended.

    Raises:
      UserError: unreadable file, broken gzip, a JSON line that is not valid or lacks the field.
    """
    reader = {"documents": _read_whole, "blank-lines": _read_blank_lines, "sentences": _read_blank_lines,
              "jsonl": _read_jsonl, "tfds": _read_tfds}[file.format]
    try:
        yield from reader(file, fields, faults)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"source {file.path}: broken gzip file ({error}); fetch or write it again") from None
    except OSError as error:
        raise UserError(f"source {file.path}: cannot be read ({error.strerror or error})") from None


def _paths(source: str) -> list[str]:
    if os.path.isfile(source):
        return [source]
    if os.path.isdir(source):
        found = sorted(p for p in pathlib.Path(source).rglob("*") if p.is_file()
                       and not any(part.startswith(".") for part in p.relative_to(source).parts))
        if not found:
            raise UserError(f"source {source}: the directory holds no files")
        return [str(path) for path in found]
    found = sorted(path for path in glob.glob(source, recursive=True) if os.path.isfile(path))
    if not found:
        raise UserError(f"source {source}: no such file, directory or glob match")
    return found


def _format_of(path: str, format: str) -> str:
    if format != "auto":
        return format
    return "jsonl" if path.lower().removesuffix(".gz").endswith(_JSON_SUFFIXES) else "documents"


@contextlib.contextmanager
def open_file(path: str, faults: DataIssues) -> Iterator[BinaryIO]:
    """Opens a file, through gzip if its first bytes say so, past a byte-order mark."""
    with open(path, "rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        with (gzip.open(raw) if zipped else contextlib.nullcontext(raw)) as stream:
            mark = stream.read(3)
            if mark[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise UserError(f"source {path}: looks like UTF-16; convert it to UTF-8")
            if mark == b"\xef\xbb\xbf":
                faults.add("byte-order marks removed", path)
            else:
                stream.seek(0)
            yield stream


def decode(data: bytes, place: str, faults: DataIssues) -> str:
    """UTF-8 with `\\n` line ends; what is not UTF-8 becomes U+FFFD, which the tokenizer drops."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
        faults.add("invalid UTF-8 sequences replaced", place, text.count("\ufffd") - data.count(b"\xef\xbf\xbd"))
    if "\r" in text:
        faults.add("files with carriage returns", place)
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def _blocks(path: str, faults: DataIssues) -> Iterator[str]:
    """Yields the text of a file in blocks of bounded size that end at a line end, else at a space, else anywhere."""
    with open_file(path, faults) as stream:
        rest, ended = b"", b"\n"
        while data := stream.read(MAX_DOCUMENT_CHARACTERS - len(rest)):
            ended = data[-1:]
            data = rest + data
            cut = len(data)
            if len(data) == MAX_DOCUMENT_CHARACTERS:
                cut = max(data.rfind(b"\n"), -1) + 1 or data.rfind(b" ") + 1 or _character_end(data)
            yield decode(data[:cut], path, faults)
            rest = data[cut:]
        if rest:
            yield decode(rest, path, faults)
        if ended != b"\n":
            faults.add("files without a last newline", path)


def _character_end(data: bytes) -> int:
    """Length of `data` without a UTF-8 character broken off at its end."""
    for back in range(1, min(4, len(data)) + 1):
        if data[-back] & 0xC0 != 0x80:  # not a continuation byte: the last character begins here
            return len(data) - back if data[-back] >= 0xC0 else len(data)
    return len(data)


def _read_whole(file: SourceFile, fields: Fields, faults: DataIssues) -> Iterator[Document]:
    line, parts = 1, 0
    for text in _blocks(file.path, faults):
        yield Document(text, file.path, line, continued=parts > 0)
        line += text.count("\n")
        parts += 1
    if parts > 1:
        faults.add("long documents divided", file.path)
    elif not parts:
        faults.add("empty files", file.path)


def _read_blank_lines(file: SourceFile, fields: Fields, faults: DataIssues) -> Iterator[Document]:
    """Documents between blank lines. The last one counts whether or not a blank line follows (the reference's does
    only if one does)."""
    line, rest, found, sentences = 1, "", False, file.format == "sentences"
    for block in _blocks(file.path, faults):
        text = rest + block
        start = 0
        for gap in _BLANK_LINES.finditer(text):
            if gap.end() == len(text):  # the blank lines may go on in the next block
                break
            if text[start:gap.start()].strip():
                found = True
                yield Document(text[start:gap.start()], file.path, line, sentence_lines=sentences)
            line += text.count("\n", start, gap.end())
            start = gap.end()
        rest = text[start:]
        while len(rest) > MAX_DOCUMENT_CHARACTERS:
            faults.add("long documents divided", f"{file.path}:{line}")
            cut = cut_point(rest, 0, MAX_DOCUMENT_CHARACTERS)
            yield Document(rest[:cut], file.path, line, sentence_lines=sentences)
            line, rest = line + rest.count("\n", 0, cut), rest[cut:]
    if rest.strip():
        yield Document(rest, file.path, line, sentence_lines=sentences)
    elif not found:
        faults.add("empty files", file.path)


def _read_jsonl(file: SourceFile, fields: Fields, faults: DataIssues) -> Iterator[Document]:
    with open_file(file.path, faults) as stream:
        number, data = 0, b"\n"
        for number, data in enumerate(stream, 1):
            if data.isspace():
                continue
            place = f"{file.name or file.path}:{number}"
            record = parse_line(decode(data, file.path, faults), place)
            text = record.get(fields.text)
            if not isinstance(text, str):
                have = ", ".join(list(record)[:8])
                raise UserError(f"{place}: field {fields.text!r} is {'missing' if text is None else 'not a text'} "
                                f"(fields here: {have}); name the text's field with --text-field")
            text = whole_characters(text, place, faults)
            units = () if fields.annotations is None else _units(record, fields.annotations, len(text), place)
            yield from divide(Document(text, file.name or file.path, number, units), faults)
        if not data.endswith(b"\n"):
            faults.add("files without a last newline", file.path)
        if not number:
            faults.add("empty files", file.path)


def whole_characters(text: str, place: str, faults: DataIssues) -> str:
    """A text without lone surrogates, which JSON can spell and no tokenizer takes."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    faults.add("half characters (lone surrogates) replaced", place, len(_SURROGATE.findall(text)))
    return _SURROGATE.sub("\ufffd", text)


def parse_line(line: str, place: str) -> dict:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not a JSON line ({error}); each line must be one JSON object") from None
    if not isinstance(record, dict):
        raise UserError(f"{place}: a JSON {type(record).__name__}, not an object; each line must be one JSON object")
    return record


def _units(record: dict, field: str, length: int, place: str) -> tuple[tuple[int, int], ...]:
    """Reads [[start, end(, label)], ...]; sorted, and of overlapping units the outermost or first is kept."""
    listed = record.get(field, [])
    try:
        units = sorted(((int(unit[0]), int(unit[1])) for unit in listed), key=lambda unit: (unit[0], -unit[1]))
    except (TypeError, ValueError, IndexError, KeyError):
        raise UserError(f"{place}: field {field!r} must be a list of [start, end] character offsets") from None
    kept, last = [], 0
    for start, end in units:
        if not 0 <= start < end <= length:
            raise UserError(f"{place}: field {field!r} has [{start}, {end}] outside the text of {length} characters")
        if start >= last:
            kept.append((start, end))
            last = end
    return tuple(kept)


def _read_tfds(file: SourceFile, fields: Fields, faults: DataIssues) -> Iterator[Document]:
    name = f"tfds:{file.path}:{file.split}"
    try:
        data = _open_tfds(file)
        count = len(data)
    except UserError:
        raise
    except Exception as error:  # TFDS raises many kinds
        raise UserError(f"source {name}: {_first_line(error)}; prepare it as array_record") from None
    for index in range(count):
        try:
            record = data[index]
        except Exception as error:  # as do ArrayRecord and what decodes the features
            raise UserError(f"source {name}: record {index + 1} cannot be read ({_first_line(error)}); bring back a "
                            "sound copy") from None
        if fields.text not in record:
            raise UserError(f"tfds:{file.path}: feature {fields.text!r} is missing (features here: "
                            f"{', '.join(record)}); name the text's feature with --text-field")
        text = record[fields.text]
        text = decode(text, file.path, faults) if isinstance(text, bytes) else str(text)
        yield from divide(Document(text, f"tfds:{file.path}", index + 1, ()), faults)


def _open_tfds(file: SourceFile) -> Sequence[dict]:
    """Opens the files of a TFDS dataset, given by directory or by name, without running code of it.

    TFDS imports what features.json names, which may be any module that Python finds, so only its own are allowed.
    """
    import tensorflow_datasets as tfds  # slow to import, and most corpora need no TFDS source
    from tensorflow_datasets.core import read_only_builder

    directory = file.path if os.path.isdir(file.path) else read_only_builder._find_builder_dir(file.path)
    if directory is None:
        raise UserError(f"source tfds:{file.path}: neither a directory nor prepared in {tfds.core.constants.DATA_DIR}; "
                        "prepare it there as array_record")
    features = pathlib.Path(directory, "features.json")
    for name in _feature_classes(json.loads(features.read_text(encoding="utf-8"))):
        if not name.startswith("tensorflow_datasets."):
            raise UserError(f"source {features}: a feature of class {name!r}, which is not one of TFDS and could run "
                            "any code; give the text in another form, such as JSON lines")
    return tfds.builder_from_directory(directory).as_data_source(split=file.split)


def _feature_classes(value: Any) -> Iterator[str]:
    """The names of classes in what features.json holds, in its newer and its older form."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("pythonClassName", "python_class_name", "type") and isinstance(inner, str):
                yield inner
            yield from _feature_classes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _feature_classes(inner)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
