"""Format "jsonl": one JSON object per line, with the text and optionally annotated units in its fields."""
import re
from collections.abc import Iterator
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.json_files import JsonError, decode_json
from spanbert_jax.corpus.documents import Document, split_document
from spanbert_jax.corpus.sources.base import CorpusFormat, FieldNames, SourceFile
from spanbert_jax.corpus.sources.files import open_file, text_lines

_SURROGATE = re.compile("[\ud800-\udfff]")


def _read(file: SourceFile, fields: FieldNames, issues: DataIssues) -> Iterator[Document]:
    with open_file(file.path, issues) as stream:
        number, line = 0, "\n"
        for number, line in enumerate(text_lines(stream, file.path, issues), 1):
            if line.isspace():
                continue
            place = f"{file.name or file.path}:{number}"
            record = parse_json_line(line, place)
            text = fields.text_of(record, place, issues)
            if text is None:
                continue
            text = replace_surrogates(text, place, issues)
            units = () if fields.annotations is None else _units(record, fields.annotations, len(text), place)
            yield from split_document(Document(text, file.name or file.path, number, units), issues)
        if not line.endswith("\n"):
            issues.add("files without a last newline", file.path)
        if not number:
            issues.add("empty files", file.path)


def parse_json_line(line: str, place: str) -> dict[str, Any]:
    """Returns the JSON object of a line. Raises UserError, which names `place`, if it is none."""
    try:
        record = decode_json(line)
    except JsonError as error:
        raise UserError(f"{place}: not a JSON line ({error}); each line must be one JSON object") from None
    if not isinstance(record, dict):
        raise UserError(f"{place}: a JSON {type(record).__name__}, not an object; each line must be one JSON object")
    return record


def replace_surrogates(text: str, place: str, issues: DataIssues) -> str:
    """Replaces lone surrogates by U+FFFD. JSON can escape them, but no tokenizer accepts them."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    issues.add("half characters (lone surrogates) replaced", place, len(_SURROGATE.findall(text)))
    return _SURROGATE.sub("\ufffd", text)


def _units(record: dict[str, Any], field: str, length: int, place: str) -> tuple[tuple[int, int], ...]:
    """Reads [[start, end(, label)], ...] and sorts it. Of overlapping units the outermost or first is kept."""
    listed = record.get(field, [])
    try:
        units = sorted(((int(unit[0]), int(unit[1])) for unit in listed), key=lambda unit: (unit[0], -unit[1]))
    except (TypeError, ValueError, OverflowError, IndexError, KeyError):
        raise UserError(f"{place}: field {field!r} must be a list of [start, end] character offsets") from None
    kept, last = [], 0
    for start, end in units:
        if not 0 <= start < end <= length:
            raise UserError(f"{place}: field {field!r} has [{start}, {end}] outside the text of {length} characters")
        if start >= last:
            kept.append((start, end))
            last = end
    return tuple(kept)


JSON_LINES = CorpusFormat(_read, (".jsonl", ".jsonlines", ".ndjson", ".json"),
                          start=re.compile(r'(?:\[\s*)?\{\s*"[^"\n]*"\s*:'))
