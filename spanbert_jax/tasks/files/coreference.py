"""Files of documents with chains of mentions that refer to the same entity: columns, JSON, GAP, and plain text."""
import os
from collections.abc import Iterator, Mapping
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files import reading
from spanbert_jax.tasks.files.coreference_columns import BEGIN, read_columns, to_conll
from spanbert_jax.tasks.files.coreference_documents import (
    MOST_CHARACTERS,
    Chains,
    CoreferenceDocument,
    GapLabels,
    Span,
    from_text,
)
from spanbert_jax.tasks.files.coreference_json import parse_record, read_records
from spanbert_jax.tasks.files.gap import COLUMNS, read_gap

_NOT_PLAIN = (".csv", ".tsv", ".conllu", ".html", ".htm", ".xml")  # their columns and tags are no words of a text

__all__ = ["Chains", "CoreferenceDocument", "GapLabels", "Span", "parse_coreference", "read_coreference", "to_conll"]


def read_coreference(path: str, issues: DataIssues, with_labels: bool = True) -> Iterator[CoreferenceDocument]:
    """Yields the documents of a file, with one in memory at a time.

    The content decides which format is read: JSON, see `parse_record`; columns after a line "#begin document", see
    `read_columns`; a table with GAP's header line, see `read_gap`; without labels also plain text, one document a file.

    Args:
      issues: counts what is repaired.
      with_labels: chains must be there; otherwise they are ignored, except for those in "given_chains".

    Raises:
      UserError: naming file, line and id of an error.
    """
    documents = _documents(path, issues, with_labels)
    yield from reading.number_repeats(documents, issues) if with_labels else documents


def _documents(path: str, issues: DataIssues, with_labels: bool) -> Iterator[CoreferenceDocument]:
    head = reading.first_characters(path)
    name = reading.without_compression(path).lower()
    if reading.is_json(path):
        return read_records(path, issues, with_labels)
    if set(COLUMNS) <= set(head.partition("\n")[0].rstrip("\r").split("\t")):
        return read_gap(path, issues, with_labels)
    if any(BEGIN.match(line) for line in head.split("\n")) or name.endswith("conll") or (with_labels and not head):
        return read_columns(path, issues, with_labels)
    if with_labels or name.endswith(_NOT_PLAIN):
        raise UserError(f"{path}: none of the formats of documents with chains; give JSON, columns behind '#begin "
                        f"document', {'or ' * with_labels}GAP's table{', or plain text' * (not with_labels)}")
    return iter([_plain_text(path, issues)])


def _plain_text(path: str, issues: DataIssues) -> CoreferenceDocument:
    id = os.path.splitext(os.path.basename(reading.without_compression(path)))[0]
    parts, size = [], 0
    for number, line in reading.lines(path, issues):
        parts.append(line)
        size += len(line) + 1
        if size > MOST_CHARACTERS:
            raise UserError(f"{path}:{number}: a document of more than {MOST_CHARACTERS:,} characters; divide the file")
    return from_text(id, f"{path}:1", path, "\n".join(parts))


def parse_coreference(inputs: str | Mapping[str, Any], location: str, issues: DataIssues,
                      with_labels: bool = False) -> CoreferenceDocument:
    """The document of a text, or of the fields of `parse_record`. Raises UserError if one is missing or wrong."""
    record = {"text": inputs} if isinstance(inputs, str) else dict(inputs)
    record = reading.replace_lone_surrogates(record, location, issues)
    return parse_record(record, location, location, issues, with_labels)
