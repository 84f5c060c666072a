"""Chunks of documents through worker processes, in order and with bounded memory."""
import collections
import concurrent.futures
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool

from spanbert_jax.corpus.documents import Document
from spanbert_jax.corpus.rows import Chunk, RowMaker, Rows, RowSettings
from spanbert_jax.corpus.tokenization import Tally
from spanbert_jax.errors import UserError

CHUNK_CHARACTERS = 400_000  # fixed, so that rows never depend on the number of workers
_PAIR_DOCUMENTS = 16  # at least so many documents to draw random ones from
_SMALL_CORPUS = 3_000_000  # characters below which starting processes costs more than it saves

_make_rows: RowMaker  # of this worker process


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


def map_chunks(settings: RowSettings, chunks: Iterable[Chunk], workers: int) -> Iterator[tuple[Chunk, Rows, Tally]]:
    """Makes the rows of every chunk, in order.

    Processes are spawned: the caller may run threads (JAX does), which forking does not survive.

    Raises:
      UserError: a worker process died.
    """
    if workers == 1:
        make = RowMaker(settings)
        for chunk in chunks:
            yield (chunk, *make(chunk))
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start, initargs=(settings,))
    pending: collections.deque = collections.deque()
    try:
        for chunk in chunks:
            pending.append((chunk, pool.submit(_run, chunk)))
            if len(pending) > 2 * workers:
                yield _finished(pending)
        while pending:
            yield _finished(pending)
    except BrokenProcessPool as error:
        raise UserError(f"a worker process died, perhaps for want of memory: try fewer than {workers} workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def worker_count(workers: int | None, characters: int) -> int:
    """Worker processes to use: as asked, else one for each core if there is enough text to share out."""
    if workers is not None:
        return workers
    if characters < _SMALL_CORPUS:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _finished(pending: collections.deque) -> tuple[Chunk, Rows, Tally]:
    chunk, future = pending.popleft()
    return (chunk, *future.result())


def _start(settings: RowSettings) -> None:
    """Readies a worker process: the parent alone answers an interrupt, and its end is the worker's end."""
    global _make_rows
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _make_rows = RowMaker(settings)


def _end_with_parent() -> None:
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _run(chunk: Chunk) -> tuple[Rows, Tally]:
    return _make_rows(chunk)
