"""Files of texts with translations: tables, JSON lines, and parallel plain files in two languages."""
import dataclasses
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.corpus.sources.files import first_characters, without_compression
from spanbert_jax.tasks.files import reading


@dataclasses.dataclass(frozen=True)
class Translation(reading.Example):
    """A text and its translations; `group` is the source's words: a repeated sentence is never in two parts."""
    source: str
    targets: tuple[str, ...]  # empty if unknown


def read_translations(path: str, source: str, target: str, columns: Sequence[str], id_field: str, issues: DataIssues,
                      with_labels: bool = True) -> Iterator[Translation]:
    """Yields the pairs of a file one by one.

    A file named *.SOURCE, such as news.en, has a text per line; the translations are in the file with .TARGET instead,
    which is skipped when it is read itself: a folder or glob may contain both. Without labels, a file whose name has no
    ending, such as standard input, has a text per line too, unless it begins like JSON or a table. Other files are
    tables or JSON lines, see `reading.table`; a JSON object may have the texts in {"translation": {...}}. Pairs with an
    empty side are left out and counted; without labels, an empty source gives an empty translation.

    Args:
      source, target: names of the columns, or endings of the files' names.
      columns: names of the columns, for a table without a header line.
      id_field: column of the pair's id; "" for its line number.
      with_labels: translations must be present.

    Raises:
      UserError: naming file and line of an error, for example if two parallel files have different numbers of lines.
    """
    if os.path.exists(_beside(path, target, source)):
        issues.add("files of translations, read together with their sources", path)
        return
    if without_compression(path).endswith(f".{source}") or (not with_labels and _has_texts_only(path, source, columns)):
        pairs = _parallel(path, source, target, issues, with_labels)
    else:
        pairs = _table(path, source, target, columns, id_field, issues, with_labels)
    for location, id, text, translation in pairs:
        if not text.strip() or (translation is not None and not translation.strip()):
            issues.add("pairs with an empty source or target, left out" if with_labels else "empty sources", location)
            if with_labels:
                continue
        yield Translation(id, location, _words(text), text, () if translation is None else (translation,))


def parse_translation(inputs: str | Mapping[str, Any], source: str, location: str, issues: DataIssues) -> Translation:
    """An input without translation, from a text, or from a text by the name of its column."""
    text = reading.field({source: inputs} if isinstance(inputs, str) else _fields(inputs), source, location)
    if not text.strip():
        issues.add("empty sources", location)
    return Translation(location, location, location, text, ())


def _fields(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of a record, with those of {"translation": {...}}."""
    nested = record.get("translation")
    return {**record, **nested} if isinstance(nested, dict) else record


def _words(text: str) -> str:
    """The words of a text in lower case, equal for texts that differ only in case and punctuation."""
    return " ".join(re.findall(r"\w+", text.lower())) or text


def _table(path: str, source: str, target: str, columns: Sequence[str], id_field: str, issues: DataIssues,
           with_labels: bool) -> Iterator[tuple[str, str, str, str | None]]:
    ids = reading.IdReader(id_field, optional=False, unique=with_labels)
    def source_of(record: Mapping[str, Any], location: str) -> str:
        fields = _fields(record)
        if source not in fields:
            there = ", ".join(map(repr, fields)) or "none"
            raise UserError(f"{location}: no field {source!r}; there are {there:.100}; set config.task.source and "
                            f"target, or config.task.columns=\"({source!r},{target!r})\" where the first line of a "
                            "table does not name its columns")
        return reading.field(fields, source, location)

    for location, record in reading.table(path, issues, columns, source_of):
        fields, text = _fields(record), source_of(record, location)
        yield location, ids(record, location), text, reading.field(fields, target, location) if with_labels else None


def _has_texts_only(path: str, source: str, columns: Sequence[str]) -> bool:
    """Whether a file, whose name has no ending, has a text per line: its first line is not that of a table."""
    if os.path.splitext(without_compression(path))[1] or columns:
        return False
    first = first_characters(path).partition("\n")[0].strip()
    return not reading.is_json(path) and source not in re.split("[\t,]", first)


def _beside(path: str, ending: str, other: str) -> str:
    """The path of a file *.ENDING, perhaps compressed, with another ending; "" if it has another one."""
    stem = without_compression(path)
    return f"{stem.removesuffix(ending)}{other}{path[len(stem):]}" if stem.endswith(f".{ending}") else ""


def _parallel(path: str, source: str, target: str, issues: DataIssues,
              with_labels: bool) -> Iterator[tuple[str, str, str, str | None]]:
    other = _beside(path, source, target)
    if not with_labels:
        yield from ((f"{path}:{number}", str(number), text, None) for number, text in reading.lines(path, issues))
        return
    if not os.path.exists(other):
        raise UserError(f"{path}: its translations, {other}, do not exist; put them next to it, or set "
                        "config.task.source and target to the endings of both names")
    for first, second in itertools.zip_longest(reading.lines(path, issues), reading.lines(other, issues)):
        if first is None or second is None:
            shorter, longer, (number, _) = (path, other, second) if first is None else (other, path, first)
            raise UserError(f"{shorter}: it has {format_plural(number - 1, 'line')}, but {longer} has more; each "
                            "line needs its translation on the same line of the other file")
        (number, text), (_, translation) = first, second
        yield f"{path}:{number}", str(number), text, translation
