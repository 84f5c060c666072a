"""Sources to documents. A format is one module with a `CorpusFormat`, and a name in `FORMATS` or an entry point."""
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.paths import is_directory, matching_paths, walk
from spanbert_jax.common.registry import Registry
from spanbert_jax.corpus.documents import Document
from spanbert_jax.corpus.sources.base import CorpusFormat, FieldNames, SourceFile
from spanbert_jax.corpus.sources.files import first_characters, readable_errors, without_compression

__all__ = ["FORMATS", "CorpusFormat", "FieldNames", "SourceFile", "file_formats", "read_documents", "require_fields",
           "resolve_sources"]

AUTO = "auto"
FORMATS: Registry[CorpusFormat] = Registry("corpus format", "corpus_formats", {
    name: f"spanbert_jax.corpus.sources.{target}" for name, target in {
        "documents": "plain_text:DOCUMENTS", "blank-lines": "blank_lines:BLANK_LINES",
        "sentences": "blank_lines:SENTENCES", "jsonl": "json_lines:JSON_LINES", "csv": "tables:CSV",
        "tsv": "tables:TSV", "wikiextractor": "wiki_extractor:WIKI_EXTRACTOR", "tfds": "tfds:TFDS",
        "python": "python_prose:PYTHON_PROSE"}.items()})
# Comments, then an element of a whole page, a drawing or a feed, or of a part of a page that fills lines.
_MARKUP = re.compile(
    r"(?:<!--(?>.*?-->)\s*)*+<(?:(?:!doctype|\?xml|mediawiki|html|head|title|meta|link|script|style|body|svg|math|rss"
    r"|feed)|(?P<part>div|p|h[1-6]|table|ul|ol|dl|section|article|main|header|footer|nav|aside|form|figure|iframe))\b",
    re.IGNORECASE | re.DOTALL)
_MARKDOWN_ENDINGS = (".md", ".markdown")  # of files that are text although they begin with markup
_TEXT_ENDINGS = (*_MARKDOWN_ENDINGS, ".txt")  # of files that are text although they begin with a part of a page
_MARKUP_ENDINGS = (".html", ".htm", ".xhtml", ".xml", ".svg")  # of files that are markup if their first character is <


def file_formats() -> tuple[str, ...]:
    """Returns the allowed values of `format`: "auto" and every format of files."""
    return (AUTO, *(name for name in FORMATS.names() if FORMATS.get(name).find is None))


def resolve_sources(sources: Sequence[str], format: str, generated: pathlib.Path | None = None) -> list[SourceFile]:
    """Expands files, directories (all files below, except hidden), globs, `python` and `tfds:NAME[:SPLIT]`.

    Args:
      sources: as given by the user; the files of a directory or glob are sorted.
      format: one of `file_formats()`, applied to files.
      generated: directory of the files that prepare generates (`python`).

    Raises:
      UserError: the format is unknown, no source is given, or no file matches.
    """
    formats = {name: FORMATS.get(name) for name in FORMATS.names()}
    of_files = {name: found for name, found in formats.items() if found.find is None}
    if format not in (AUTO, *of_files):
        raise UserError(f"format is {format!r}: it must be one of {', '.join((AUTO, *of_files))}")
    if not sources:
        raise UserError("no source given: name a file, a directory, a glob, 'python' or 'tfds:NAME'")
    files: list[SourceFile] = []
    for source in sources:
        found = next(filter(None, (other.find(source, generated) for other in formats.values() if other.find)), None)
        files.extend([found] if found else (
            SourceFile(path, _detect_format(path, of_files) if format == AUTO else format)
            for path in _matching_files(source)))
    return files


def read_documents(file: SourceFile, fields: FieldNames, issues: DataIssues) -> Iterator[Document]:
    """Yields the documents of one source in order and counts in `issues` what was repaired.

    Raises UserError if the file cannot be read, is not text in UTF-8, or a record is invalid or lacks the text.
    """
    with readable_errors(file.path):
        yield from FORMATS.get(file.format).read(file, fields, issues)


def require_fields(files: Sequence[SourceFile], fields: FieldNames) -> None:
    """Raises UserError if names of fields are given, but no source has fields."""
    if fields != FieldNames() and not any(FORMATS.get(file.format).has_fields for file in files):
        formats = ", ".join(sorted({repr(file.format) for file in files}))
        raise UserError("--text-field and --annotation-field name fields of records, but no source has any (formats "
                        f"here: {formats}); omit them, or give the right --format")


def _matching_files(source: str) -> list[str]:
    if os.path.isfile(source):
        return [source]
    if os.path.isdir(source):
        found = [entry.path for entry in walk(source, set())
                 if not is_directory(entry) and (entry.is_file(follow_symlinks=False) or _is_file(entry.path))]
        if not found:
            raise UserError(f"source {source}: the directory holds no files")
        return found
    if os.path.exists(source):
        raise UserError(f"source {source}: a pipe or a device, which cannot be read twice; write its text to a file")
    matches = sorted({path for path in matching_paths(source) if _is_file(path)})
    if not matches:
        raise UserError(f"source {source}: no such file, directory or glob match")
    return matches


def _is_file(path: str) -> bool:
    """Whether a path is a file, perhaps by a symbolic link. Raises UserError for a link to nothing."""
    if os.path.islink(path) and not os.path.exists(path):
        raise UserError(f"{path}: a symbolic link to {os.readlink(path)}, which does not exist or links to itself; "
                        "restore that, or remove the link")
    return os.path.isfile(path)


def _detect_format(path: str, formats: Mapping[str, CorpusFormat]) -> str:
    """The format of a file, of those of files by name: by the file's name, else by its first characters."""
    name = without_compression(path).lower()
    if found := next((other for other, format in formats.items() if name.endswith(format.suffixes)), None):
        return found
    start = first_characters(path)
    if found := next((other for other, format in formats.items() if format.start and format.start.match(start)), None):
        return found
    markup = None if name.endswith(_MARKDOWN_ENDINGS) else _MARKUP.match(start)
    if (markup and not (markup["part"] and name.endswith(_TEXT_ENDINGS))) or (
            start.startswith("<") and name.endswith(_MARKUP_ENDINGS)):
        raise UserError(f"{path}: HTML or XML; extract its text (of a Wikipedia dump with WikiExtractor), leave it "
                        "out, or read the markup as text with --format documents")
    return "documents"
