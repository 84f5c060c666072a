"""First pass over the sources: fingerprint, exact duplicates, and which documents are held out."""
import array
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.corpus.documents import Document
from spanbert_jax.corpus.readers import Fields, SourceFile, read_documents

TRAIN, VALIDATION, SKIPPED = 0, 1, 2
SPLITS = ("train", "validation")
_DROPPED = "".join(map(chr, [*range(0x21), *range(0x7F, 0xA1), 0xFFFD]))  # white space and what the tokenizer drops


@dataclasses.dataclass(frozen=True)
class Survey:
    """What the first pass found.

    Attributes:
      files: the sources in reading order.
      fields: names of the fields read.
      characters: [parts] int64, visible characters of each document, or part of a divided one.
      fate: [parts] uint8, TRAIN, VALIDATION or SKIPPED.
      fingerprint: hash of all content in order.
      duplicates: documents skipped as exact repeats of an earlier one.
      empty: documents skipped for having no text.
      faults: what the readers mended.
    """
    files: Sequence[SourceFile]
    fields: Fields
    characters: np.ndarray
    fate: np.ndarray
    fingerprint: str
    duplicates: int
    empty: int
    faults: DataIssues

    def documents(self, split: int) -> Iterator[Document]:
        """Reads the documents of a split again, in order.

        Raises:
          UserError: a source has changed since the survey.
        """
        index = 0
        for file in self.files:
            for document in read_documents(file, self.fields, DataIssues()):
                if index >= len(self.fate) or _visible(document.text) != self.characters[index]:
                    raise UserError(f"source {file.path}: changed while it was being read; run prepare again")
                if self.fate[index] == split:
                    yield document
                index += 1

    def split_characters(self, split: int) -> int:
        """Characters of a split's documents."""
        return int(self.characters[self.fate == split].sum())


def survey(files: Sequence[SourceFile], fields: Fields, validation_fraction: float,
           on_document: Callable[[Document], None]) -> Survey:
    """Reads everything once and settles which documents are used, and where.

    Args:
      files: what to read.
      fields: names of the fields read.
      validation_fraction: share of the characters to hold out, by whole documents.
      on_document: called with every document, for showing progress.

    Raises:
      UserError: the sources hold no text at all.
    """
    faults = DataIssues()
    hashes, characters, whole = array.array("Q"), array.array("q"), array.array("q")
    content = hashlib.blake2b(digest_size=16)
    for file in files:
        content.update(file.format.encode())
        for document in read_documents(file, fields, faults):
            digest = hashlib.blake2b(document.text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            content.update(digest)
            if document.units is not None:
                content.update(repr(document.units).encode())
            hashes.append(int.from_bytes(digest, "little"))
            characters.append(_visible(document.text))
            whole.append(whole[-1] + (not document.continued) if whole else 0)
            on_document(document)
    characters, whole = np.array(characters, np.int64), np.array(whole, np.int64)
    if not characters.sum():
        raise UserError(f"the sources hold no text at all ({len(files)} files read); give others")
    # The parts of a divided document share one fate: it counts as one, with the hashes of its parts summed.
    starts = np.flatnonzero(np.diff(whole, prepend=-1))
    hashes = np.add.reduceat(np.array(hashes, np.uint64), starts)
    sizes = np.add.reduceat(characters, starts)
    first = np.zeros(len(hashes), bool)
    first[np.unique(hashes, return_index=True)[1]] = True
    used = first & (sizes > 0)
    fate = np.where(used, TRAIN, SKIPPED).astype(np.uint8)
    fate[_held_out(hashes, sizes, used, validation_fraction)] = VALIDATION
    fate = fate[whole]
    fate[characters == 0] = SKIPPED
    return Survey(files, fields, characters, fate, content.hexdigest(), duplicates=int((~first & (sizes > 0)).sum()),
                  empty=int((sizes == 0).sum()), faults=faults)


def _visible(text: str) -> int:
    """Characters of a text without what it begins and ends with that gives no token."""
    return len(text.strip(_DROPPED))


def _held_out(hashes: np.ndarray, characters: np.ndarray, used: np.ndarray, fraction: float) -> list[int]:
    """Documents in the order of their hashes until `fraction` of the characters is reached.

    A document that would take more than one and a half times the share is passed over, so one long book does not become
    half the held-out text; if none fits, the shortest is taken. One document always stays for training.
    """
    candidates = np.flatnonzero(used)
    if fraction <= 0 or len(candidates) < 2:
        return []
    wanted, held, chosen = fraction * characters[candidates].sum(), 0, []
    for index in candidates[np.argsort(hashes[candidates], kind="stable")]:
        if held >= wanted or len(chosen) == len(candidates) - 1:
            break
        if held + characters[index] <= 1.5 * wanted:
            chosen.append(int(index))
            held += characters[index]
    return chosen or [int(candidates[np.argmin(characters[candidates])])]
