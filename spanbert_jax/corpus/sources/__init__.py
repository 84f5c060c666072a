"""Sources to documents. A format is one module with a `CorpusFormat`, and a name in `FORMATS` or an entry point."""
import glob
import gzip
import os
import pathlib
import zlib
from collections.abc import Iterator, Sequence

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.registry import Registry
from spanbert_jax.corpus.documents import Document
from spanbert_jax.corpus.sources.base import CorpusFormat, FieldNames, SourceFile

__all__ = ["FORMATS", "CorpusFormat", "FieldNames", "SourceFile", "file_formats", "read_documents", "resolve_sources"]

AUTO = "auto"
FORMATS: Registry[CorpusFormat] = Registry("corpus format", "corpus_formats", {
    name: f"spanbert_jax.corpus.sources.{target}" for name, target in {
        "documents": "plain_text:DOCUMENTS", "blank-lines": "blank_lines:BLANK_LINES",
        "sentences": "blank_lines:SENTENCES", "jsonl": "json_lines:JSON_LINES", "tfds": "tfds:TFDS",
        "python": "python_prose:PYTHON_PROSE"}.items()})


def file_formats() -> tuple[str, ...]:
    """Returns the allowed values of `format`: "auto" and every format of files."""
    return (AUTO, *(name for name in FORMATS.names() if FORMATS.get(name).find is None))


def resolve_sources(sources: Sequence[str], format: str, generated: pathlib.Path | None = None) -> list[SourceFile]:
    """Expands files, directories (all files below, except hidden ones), globs, `python` and `tfds:NAME[:SPLIT]`.

    Args:
      sources: as given by the user; the files of a directory or glob are sorted.
      format: one of `file_formats()`, applied to files.
      generated: directory of the files that prepare generates (`python`).

    Raises:
      UserError: the format is unknown, no source is given, or no file matches.
    """
    allowed, formats = file_formats(), [FORMATS.get(name) for name in FORMATS.names()]
    if format not in allowed:
        raise UserError(f"format is {format!r}: it must be one of {', '.join(allowed)}")
    if not sources:
        raise UserError("no source given: name a file, a directory, a glob, 'python' or 'tfds:NAME'")
    by_suffix = {suffix: name for name in allowed[1:] for suffix in FORMATS.get(name).suffixes}
    files: list[SourceFile] = []
    for source in sources:
        found = next(filter(None, (other.find(source, generated) for other in formats if other.find)), None)
        files.extend([found] if found else (
            SourceFile(path, _detect_format(path, by_suffix) if format == AUTO else format)
            for path in _matching_files(source)))
    return files


def read_documents(file: SourceFile, fields: FieldNames, issues: DataIssues) -> Iterator[Document]:
    """Yields the documents of one source in order and counts in `issues` what was repaired.

    Raises UserError if the file cannot be read, its gzip data is broken, or a record is invalid or lacks the text.
    """
    try:
        yield from FORMATS.get(file.format).read(file, fields, issues)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"source {file.path}: broken gzip file ({error}); fetch or write it again") from None
    except OSError as error:
        raise UserError(f"source {file.path}: cannot be read ({error.strerror or error})") from None


def _matching_files(source: str) -> list[str]:
    if os.path.isfile(source):
        return [source]
    if os.path.isdir(source):
        found = sorted(p for p in pathlib.Path(source).rglob("*") if p.is_file()
                       and not any(part.startswith(".") for part in p.relative_to(source).parts))
        if not found:
            raise UserError(f"source {source}: the directory holds no files")
        return [str(path) for path in found]
    matches = sorted(path for path in glob.glob(source, recursive=True) if os.path.isfile(path))
    if not matches:
        raise UserError(f"source {source}: no such file, directory or glob match")
    return matches


def _detect_format(path: str, by_suffix: dict[str, str]) -> str:
    name = path.lower().removesuffix(".gz")
    return next((format for suffix, format in by_suffix.items() if name.endswith(suffix)), "documents")
