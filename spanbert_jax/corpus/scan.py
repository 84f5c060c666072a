"""First pass over the sources: content fingerprint, exact duplicates, and the split of each document."""
import array
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.corpus.documents import Document
from spanbert_jax.corpus.sources import FieldNames, SourceFile, read_documents, require_fields

TRAIN, VALIDATION, SKIPPED = 0, 1, 2
SPLITS = ("train", "validation")
_INVISIBLE = "".join(map(chr, [*range(0x21), *range(0x7F, 0xA1), 0xFFFD]))  # white space and what the tokenizer drops


@dataclasses.dataclass(frozen=True)
class SourceScan:
    """Result of the first pass. A "part" is a document, or one part of a split document."""
    files: Sequence[SourceFile]  # the sources in reading order
    fields: FieldNames  # names of the record fields
    characters: np.ndarray  # [parts] int64, visible characters of each part
    assignment: np.ndarray  # [parts] uint8, TRAIN, VALIDATION or SKIPPED
    fingerprint: str  # hash of all content in order
    duplicates: int  # number of documents skipped because an earlier one is identical
    empty: int  # number of documents skipped because they have no text
    issues: DataIssues  # what the formats repaired

    def documents(self, split: int) -> Iterator[Document]:
        """Reads the documents of a split again, in order. Raises UserError if a source has changed since the scan."""
        index = 0
        for file in self.files:
            for document in read_documents(file, self.fields, DataIssues()):
                if index >= len(self.assignment) or _visible_length(document.text) != self.characters[index]:
                    raise UserError(f"source {file.path}: changed while it was being read; run prepare again")
                if self.assignment[index] == split:
                    yield document
                index += 1

    def split_characters(self, split: int) -> int:
        """Returns the number of visible characters in a split."""
        return int(self.characters[self.assignment == split].sum())


def scan_sources(files: Sequence[SourceFile], fields: FieldNames, validation_fraction: float,
                 on_document: Callable[[Document], None]) -> SourceScan:
    """Reads every source once and assigns each document to a split. Calls `on_document` with each, to show progress.

    Holds out `validation_fraction` of the characters, by whole documents. Raises UserError if there is no text at all.
    """
    require_fields(files, fields)
    issues = DataIssues()
    hashes, characters, numbers = array.array("Q"), array.array("q"), array.array("q")
    content = hashlib.blake2b(digest_size=16)
    for file in files:
        content.update(file.format.encode())
        for document in read_documents(file, fields, issues):
            digest = hashlib.blake2b(document.text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            content.update(digest)
            if document.units is not None:
                content.update(repr(document.units).encode())
            hashes.append(int.from_bytes(digest, "little"))
            characters.append(_visible_length(document.text))
            numbers.append(numbers[-1] + (not document.continued) if numbers else 0)
            on_document(document)
    part_characters = np.array(characters, np.int64)
    if not part_characters.sum():
        raise UserError(f"the sources hold no text at all ({format_plural(len(files), 'file')} read); give others")
    assignment, duplicates, empty = _assign_splits(
        np.array(hashes, np.uint64), part_characters, np.array(numbers, np.int64), validation_fraction)
    return SourceScan(files, fields, part_characters, assignment, content.hexdigest(), duplicates, empty, issues)


def _assign_splits(hashes: np.ndarray, characters: np.ndarray, documents: np.ndarray,
                   validation_fraction: float) -> tuple[np.ndarray, int, int]:
    """Returns the split [parts] of each part, and the numbers of duplicate and of empty documents.

    `documents` [parts] has the ascending number of the document of each part; all parts of one go to the same split.
    """
    # A split document counts as one: its hash is the sum of the hashes of its parts.
    starts = np.flatnonzero(np.diff(documents, prepend=-1))
    hashes = np.add.reduceat(hashes, starts)
    sizes = np.add.reduceat(characters, starts)
    first = np.zeros(len(hashes), bool)
    first[np.unique(hashes, return_index=True)[1]] = True
    used = first & (sizes > 0)
    assignment = np.where(used, TRAIN, SKIPPED).astype(np.uint8)
    assignment[_held_out(hashes, sizes, used, validation_fraction)] = VALIDATION
    assignment = assignment[documents]
    assignment[characters == 0] = SKIPPED
    return assignment, int((~first & (sizes > 0)).sum()), int((sizes == 0).sum())


def _visible_length(text: str) -> int:
    """Returns the number of characters without those at both ends that give no token."""
    return len(text.strip(_INVISIBLE))


def _held_out(hashes: np.ndarray, characters: np.ndarray, used: np.ndarray, fraction: float) -> list[int]:
    """Selects documents in hash order until `fraction` of the characters is reached.

    Skips a document that would take the total above 1.5 times the wanted size, so that one long book does not become
    half of the held-out text. If no document fits, the shortest one is selected. At least one stays for training.
    """
    candidates = np.flatnonzero(used)
    if fraction <= 0 or len(candidates) < 2:
        return []
    wanted, held, chosen = fraction * characters[candidates].sum(), 0, list[int]()
    for index in candidates[np.argsort(hashes[candidates], kind="stable")]:
        if held >= wanted or len(chosen) == len(candidates) - 1:
            break
        if held + characters[index] <= 1.5 * wanted:
            chosen.append(int(index))
            held += characters[index]
    return chosen or [int(candidates[np.argmin(characters[candidates])])]
