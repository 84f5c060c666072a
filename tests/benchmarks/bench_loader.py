"""Rows a second that the loader delivers.

    python -m tests.benchmarks.bench_loader [CORPUS]

CORPUS is a prepared corpus (default: LitBank's novels, rows of 512, prepared anew). Indices are random, batches of 256.
"""
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from spanbert_jax.corpus import RowOrder, RowSource, batches, open_corpus, prepare
from tests.paths import DATA

BATCH = 256
BATCHES = 200


def main() -> None:
    """Prints one table."""
    with tempfile.TemporaryDirectory() as scratch:
        if len(sys.argv) > 1:
            corpus = open_corpus(sys.argv[1])
        else:
            corpus = prepare(str(DATA / "litbank" / "original"), f"{scratch}/out",
                             tokenizer=DATA / "vocab" / "bert-base-cased-vocab.txt", progress=False)
        source = RowSource(corpus, "train")
        order = RowOrder(len(source), BATCH, seed=0)
        indices = np.random.default_rng(0).integers(0, len(source), (BATCHES, BATCH))
        table = Table("what", "rows/s", title=f"loader: {len(source):,} rows of {corpus.length}, batches of {BATCH}")
        for name, job in [
                ("RowOrder.indices", lambda: [order.indices(step) for step in range(BATCHES)]),
                ("RowSource.rows, random", lambda: [source.rows(row) for row in indices]),
                ("batches, read ahead", lambda: list(map(len, batches(source, order.indices, range(BATCHES)))))]:
            table.add_row(name, f"{_rows_per_second(job):,.0f}")
    Console().print(table)


def _rows_per_second(job: Callable[[], object]) -> float:
    job()
    start = time.perf_counter()
    job()
    return BATCHES * BATCH / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
