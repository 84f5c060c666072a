"""Files of documents with their summaries: CSV, TSV, JSON lines and JSON arrays."""
from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files import reading
from spanbert_jax.text import sentence_spans


@dataclasses.dataclass(frozen=True)
class Document:
    """A text and its summaries; see `protocol.Example`.

    Attributes:
      sentences: as the file gives them; None where it gives one text.
      text: the file's, or its sentences joined by single spaces.
      summaries: any of which is right; none where they are not known.
    """
    id: str
    location: str
    group: str
    sentences: tuple[str, ...] | None
    text: str
    summaries: tuple[str, ...]

    @property
    def source(self) -> str:
        """The text, as a task that writes names it."""
        return self.text

    @property
    def targets(self) -> tuple[str, ...]:
        """The summaries, as a task that writes names them."""
        return self.summaries

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First character of each sentence in the text and the one after its last; found by punctuation where the file
        does not give sentences."""
        if self.sentences is None:
            return sentence_spans(self.text)
        spans, start = [], 0
        for sentence in self.sentences:
            spans.append((start, start + len(sentence)))
            start += len(sentence) + 1
        return spans

    @property
    def sentence_texts(self) -> list[str]:
        """The sentences, as `spans` has them."""
        return [self.text[start:end] for start, end in self.spans]


def read_documents(path: str, source: str, target: str, id_field: str, group_field: str, issues: DataIssues,
                   with_labels: bool = True) -> Iterator[Document]:
    """Yields the documents of a file one after the other; see `reading.table` for its layouts.

    Args:
      source: name of the field with the text, or in JSON a list of sentences.
      target: name of that with the summary, or in JSON a list of several, any of which is right; "" for none.
      id_field: name of that with the document's id; "" for the number of its line.
      group_field: name of that by which held-back parts are made; "" where every document stands on its own.
      labelled: whether documents that lack text, or the summary that they should have, are left out, and ids are there
        once; otherwise summaries are not looked at.

    Raises:
      UserError: naming file, line and id: a field is missing or of another type, or an id is there twice.
    """
    ids = reading.IdReader(id_field, optional=False, unique=with_labels)
    for location, record in reading.table(path, issues):
        id = ids(record, location)
        told, counted = f"{location}: id {id!r}", f"{location} (id {id!r})"
        sentences, text = _source(record, source, told)
        wanted = with_labels and bool(target)
        summaries = _summaries(record, target, told, counted, issues) if wanted else ()
        missing = "text" if not text.strip() else "a summary" if wanted and not summaries else ""
        if missing:
            issues.add(f"documents without {missing}{', left out' if with_labels else ''}", counted)
        if not (missing and with_labels):  # without labels each input has its prediction
            group = reading.name_field(record, group_field, location) if group_field else location
            yield Document(id, location, group, sentences, text, summaries)


def parse_document(inputs: str | Mapping[str, Any], source: str, location: str, issues: DataIssues) -> Document:
    """A document without a summary: of a text, or of a text or list of sentences under the name that it has in files.

    Raises:
      UserError: when it is missing or of another type.
    """
    sentences, text = _source({source: inputs} if isinstance(inputs, str) else inputs, source, location)
    if not text.strip():
        issues.add("documents without text", location)
    return Document(location, location, location, sentences, text, ())


def _source(record: Mapping[str, Any], name: str, location: str) -> tuple[tuple[str, ...] | None, str]:
    """Sentences, where they are given, and text."""
    texts = _texts(record, name, location)
    return (None, texts) if isinstance(texts, str) else (texts, " ".join(texts))


def _summaries(record: Mapping[str, Any], name: str, location: str, counted: str, issues: DataIssues) -> tuple[str, ...]:
    """Those that are not empty."""
    texts = _texts(record, name, location)
    texts = (texts,) if isinstance(texts, str) else texts
    kept = tuple(text for text in texts if text.strip())
    if kept and len(kept) < len(texts):
        issues.add("empty summaries beside others, left out", counted, len(texts) - len(kept))
    return kept


def _texts(record: Mapping[str, Any], name: str, location: str) -> str | tuple[str, ...]:
    value = reading.field(record, name, location, (str, list))
    if isinstance(value, str):
        return value
    for number, entry in enumerate(value, 1):
        if not isinstance(entry, str):
            raise UserError(f"{location}: entry {number} of the list in field {name!r} is {entry!r:.80}; give a text, or "
                            "a list of nothing but texts")
    return tuple(value)
