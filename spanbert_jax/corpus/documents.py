"""The unit every reader yields: a document, where it came from, and what was noticed on the way."""
import dataclasses
from collections.abc import Iterator

from spanbert_jax.common.issues import DataIssues

MAX_DOCUMENT_CHARACTERS = 4_000_000  # longer texts are divided, so that memory stays bounded and all cores get work


@dataclasses.dataclass(frozen=True)
class Document:
    """One document, or one part of a very long one.

    Attributes:
      text: its characters, with `\\n` line ends.
      file: the file, or other source, it was read from.
      line: the line of that file on which the text begins, from 1 (the record number where lines mean nothing).
      units: (start, end) character offsets of annotated units; None for plain text files.
      sentence_lines: whether each line is a sentence.
      continued: whether this is a further part of the document before, with which it is trained on or held out.
    """
    text: str
    file: str
    line: int
    units: tuple[tuple[int, int], ...] | None = None
    sentence_lines: bool = False
    continued: bool = False

    def place(self, offset: int) -> str:
        """`file:line` of a character. Text inside JSON has one line for all."""
        inside = 0 if self.units is not None else self.text.count("\n", 0, offset)
        return f"{self.file}:{self.line + inside}"


def divide(document: Document, faults: DataIssues, limit: int = MAX_DOCUMENT_CHARACTERS) -> Iterator[Document]:
    """Yields the document, or parts of at most `limit` characters cut at white space where there is some."""
    text, start = document.text, 0
    if len(text) > limit:
        faults.add("long documents divided", f"{document.file}:{document.line}")
    while len(text) - start > limit:
        end = cut_point(text, start, start + limit)
        yield _part(document, start, end)
        start = end
    yield document if start == 0 else _part(document, start, len(text))


def cut_point(text: str, start: int, end: int) -> int:
    """The last place in (start, end] just after a line end, else after a space, else `end`."""
    for mark in ("\n", " "):
        found = text.rfind(mark, start, end)
        if found > start:
            return found + 1
    return end


def _part(document: Document, start: int, end: int) -> Document:
    if document.units is None:
        line = document.line + document.text.count("\n", 0, start)
        return dataclasses.replace(document, text=document.text[start:end], line=line, continued=start > 0)
    units = tuple((a - start, b - start) for a, b in document.units if a >= start and b <= end)
    return dataclasses.replace(document, text=document.text[start:end], units=units, continued=start > 0)
