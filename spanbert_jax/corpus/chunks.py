"""Chunks of documents: the unit of work of a worker process."""
import os
from collections.abc import Iterable, Iterator

from spanbert_jax.corpus.documents import Document
from spanbert_jax.corpus.rows import Chunk

CHUNK_CHARACTERS = 400_000  # fixed, so that rows do not depend on the number of workers
_PAIR_DOCUMENTS = 16  # minimum number of documents to draw random ones from
_SMALL_CORPUS = 3_000_000  # characters; below this, starting processes takes longer than it saves


def make_chunks(documents: Iterable[Document], split: int, blocks: str) -> Iterator[Chunk]:
    """Groups documents into chunks of at least CHUNK_CHARACTERS characters; for `pairs`, also of at least 16 documents.

    For `pairs`, a last chunk of fewer than 16 documents joins the chunk before it, so that random documents exist.
    """
    min_documents = _PAIR_DOCUMENTS if blocks == "pairs" else 1
    gathered: list[Document] = []
    waiting: list[Document] = []
    number = size = 0
    for document in documents:
        gathered.append(document)
        size += len(document.text)
        if size >= CHUNK_CHARACTERS and len(gathered) >= min_documents:
            if waiting:
                yield Chunk((split, number), waiting)
                number += 1
            waiting, gathered, size = gathered, [], 0
    if len(gathered) < min_documents:
        waiting, gathered = waiting + gathered, []
    for last in (waiting, gathered):
        if last:
            yield Chunk((split, number), last)
            number += 1


def worker_count(workers: int | None, characters: int) -> int:
    """Returns the number of worker processes: as given, else one per core if there is enough text."""
    if workers is not None:
        return workers
    if characters < _SMALL_CORPUS:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
