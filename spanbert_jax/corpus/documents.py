"""Documents: what every corpus format yields."""
import dataclasses
from collections.abc import Iterator

from spanbert_jax.common.issues import DataIssues

# Longer texts are split into several documents, which bounds memory and gives every worker something to do.
MAX_DOCUMENT_CHARACTERS = 4_000_000


@dataclasses.dataclass(frozen=True)
class Document:
    """One document, or one part of a very long document."""
    text: str  # with `\n` line ends
    file: str  # the file (or other source) it was read from
    line: int  # 1-based line of the file where the text begins; the record number if the source has no lines
    units: tuple[tuple[int, int], ...] | None = None  # (start, end) of annotated units; None for other formats
    sentence_lines: bool = False  # whether each line is one sentence
    continued: bool = False  # whether this is a later part of the previous document. All parts go to the same split

    def place(self, offset: int) -> str:
        """Returns `file:line` of a character. A JSON record has one line number for its whole text."""
        inside = 0 if self.units is not None else self.text.count("\n", 0, offset)
        return f"{self.file}:{self.line + inside}"


def split_document(document: Document, issues: DataIssues, limit: int = MAX_DOCUMENT_CHARACTERS) -> Iterator[Document]:
    """Yields the document, or its parts of at most `limit` characters, split at white space where possible."""
    text, start = document.text, 0
    if len(text) > limit:
        issues.add("long documents divided", f"{document.file}:{document.line}")
    while len(text) - start > limit:
        end = split_position(text, start, start + limit)
        yield _part(document, start, end)
        start = end
    yield document if start == 0 else _part(document, start, len(text))


def split_position(text: str, start: int, end: int) -> int:
    """Returns the last position in (start, end] after a line end, else after a space, else `end`."""
    for mark in ("\n", " "):
        found = text.rfind(mark, start, end)
        if found > start:
            return found + 1
    return end


def _part(document: Document, start: int, end: int) -> Document:
    line, units = document.line, document.units
    if units is None:
        line += document.text.count("\n", 0, start)
    else:
        units = tuple((a - start, b - start) for a, b in units if a >= start and b <= end)
    return dataclasses.replace(document, text=document.text[start:end], line=line, units=units, continued=start > 0)
