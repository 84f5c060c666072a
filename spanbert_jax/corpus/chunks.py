"""Documents in chunks of fixed size, the unit of work that is shared out among processes."""
import os
from collections.abc import Iterable, Iterator

from spanbert_jax.corpus.documents import Document
from spanbert_jax.corpus.rows import Chunk

CHUNK_CHARACTERS = 400_000  # fixed, so that rows never depend on the number of workers
_PAIR_DOCUMENTS = 16  # at least so many documents to draw random ones from
_SMALL_CORPUS = 3_000_000  # characters below which starting processes costs more than it saves


def chunked(documents: Iterable[Document], split: int, blocks: str) -> Iterator[Chunk]:
    """Groups documents into chunks of CHUNK_CHARACTERS or one document; for `pairs`, of at least 16 documents too.

    For `pairs` a last chunk below 16 documents joins the one before it, so that none is left without others.
    """
    least = _PAIR_DOCUMENTS if blocks == "pairs" else 1
    gathered: list[Document] = []
    waiting: list[Document] = []
    number = size = 0
    for document in documents:
        gathered.append(document)
        size += len(document.text)
        if size >= CHUNK_CHARACTERS and len(gathered) >= least:
            if waiting:
                yield Chunk((split, number), waiting)
                number += 1
            waiting, gathered, size = gathered, [], 0
    if len(gathered) < least:
        waiting, gathered = waiting + gathered, []
    for last in (waiting, gathered):
        if last:
            yield Chunk((split, number), last)
            number += 1


def worker_count(workers: int | None, characters: int) -> int:
    """Worker processes to use: as asked, else one for each core if there is enough text to share out."""
    if workers is not None:
        return workers
    if characters < _SMALL_CORPUS:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
