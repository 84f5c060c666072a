"""Files of documents with summaries: CSV, TSV, JSON lines and JSON arrays."""
import dataclasses
import operator
from collections.abc import Iterator, Mapping
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files import reading
from spanbert_jax.text import sentence_spans


@dataclasses.dataclass(frozen=True)
class Document(reading.Example):
    """A text and its summaries."""
    sentences: tuple[str, ...] | None  # as in the file; None if the file has one text
    text: str  # as in the file, or the sentences joined by single spaces
    summaries: tuple[str, ...]  # all correct summaries; empty if unknown

    source = property(operator.attrgetter("text"), doc="The text: the source of a `seq2seq.Pair`.")
    targets = property(operator.attrgetter("summaries"), doc="The summaries: the targets of a `seq2seq.Pair`.")

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Characters [start, end) of each sentence in the text; split at punctuation if the file has one text."""
        if self.sentences is None:
            return sentence_spans(self.text)
        spans, start = [], 0
        for sentence in self.sentences:
            spans.append((start, start + len(sentence)))
            start += len(sentence) + 1
        return spans

    @property
    def sentence_texts(self) -> list[str]:
        """The texts of the sentences in `spans`."""
        return [self.text[start:end] for start, end in self.spans]


def read_documents(path: str, source: str, target: str, id_field: str, group_field: str, issues: DataIssues,
                   with_labels: bool = True) -> Iterator[Document]:
    """Yields the documents of a file one by one; see `reading.table` for the formats.

    Args:
      source: field of the text, or in JSON of a list of sentences.
      target: field of the summary, or in JSON of a list of correct summaries; "" for none.
      id_field: field of the document's id; "" for its line number.
      group_field: field by which parts are held out; "" if documents are independent.
      with_labels: documents without text or summary are left out, and ids must be unique; otherwise summaries are
        ignored.

    Raises:
      UserError: naming file, line and id: a field is missing or of another type, or an id occurs twice.
    """
    ids = reading.IdReader(id_field, optional=False, unique=with_labels)
    for location, record in reading.table(path, issues, check=lambda row, place: _source(row, source, place)):
        id = ids(record, location)
        place, counted = f"{location}: id {id!r}", f"{location} (id {id!r})"
        sentences, text = _source(record, source, place)
        wanted = with_labels and bool(target)
        summaries = _summaries(record, target, place, counted, issues) if wanted else ()
        missing = "text" if not text.strip() else "a summary" if wanted and not summaries else ""
        if missing:
            issues.add(f"documents without {missing}{', left out' if with_labels else ''}", counted)
        if not (missing and with_labels):  # without labels every input gets a prediction
            group = reading.name_field(record, group_field, location) if group_field else location
            yield Document(id, location, group, sentences, text, summaries)


def parse_document(inputs: str | Mapping[str, Any], source: str, location: str, issues: DataIssues) -> Document:
    """A document without summary, from a text or a field. Raises UserError if it is missing or of another type."""
    sentences, text = _source({source: inputs} if isinstance(inputs, str) else inputs, source, location)
    if not text.strip():
        issues.add("documents without text", location)
    return Document(location, location, location, sentences, text, ())


def _source(record: Mapping[str, Any], name: str, location: str) -> tuple[tuple[str, ...] | None, str]:
    """The sentences, if given, and the text."""
    texts = _texts(record, name, location)
    return (None, texts) if isinstance(texts, str) else (texts, " ".join(texts))


def _summaries(record: Mapping[str, Any], name: str, location: str, counted: str,
               issues: DataIssues) -> tuple[str, ...]:
    """The nonempty summaries."""
    texts = _texts(record, name, location)
    texts = (texts,) if isinstance(texts, str) else texts
    kept = tuple(text for text in texts if text.strip())
    if kept and len(kept) < len(texts):
        issues.add("empty summaries of documents with several, left out", counted, len(texts) - len(kept))
    return kept


def _texts(record: Mapping[str, Any], name: str, location: str) -> str | tuple[str, ...]:
    value = reading.field(record, name, location, (str, list))
    if isinstance(value, str):
        return value
    for number, entry in enumerate(value, 1):
        if not isinstance(entry, str):
            raise UserError(f"{location}: entry {number} of the list in field {name!r} is {entry!r:.80}; give a text, "
                            "or a list of texts")
    return tuple(value)
