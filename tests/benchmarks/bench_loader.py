"""Rows per second of the loader, in batches of 256 random rows.

  python -m tests.benchmarks.bench_loader [CORPUS]
"""
import argparse
import tempfile
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from spanbert_jax.corpus import RowOrder, RowSource, batches, open_corpus, prepare
from tests.paths import DATA

BATCH = 256


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", help="a prepared corpus (default: prepares LitBank's novels, rows of 512)")
    parser.add_argument("--batches", type=int, default=200)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if args.corpus:
            corpus = open_corpus(args.corpus)
        else:
            corpus = prepare(str(DATA / "litbank" / "original"), f"{scratch}/out",
                             tokenizer=DATA / "vocab" / "bert-base-cased-vocab.txt", progress=False)
        source = RowSource(corpus, "train")
        order = RowOrder(len(source), BATCH, seed=0)
        indices = np.random.default_rng(0).integers(0, len(source), (args.batches, BATCH))
        table = Table("operation", "rows/s",
                      title=f"loader: {len(source):,} rows of {corpus.length}, batches of {BATCH}")
        for name, job in [
                ("RowOrder.indices", lambda: [order.indices(step) for step in range(args.batches)]),
                ("RowSource.rows, random", lambda: [source.rows(row) for row in indices]),
                ("batches, read ahead", lambda: list(map(len, batches(source, order.indices, range(args.batches)))))]:
            table.add_row(name, f"{args.batches * BATCH / _seconds(job):,.0f}")
    Console().print(table)


def _seconds(job: Callable[[], object]) -> float:
    """Time of the second run."""
    job()
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
