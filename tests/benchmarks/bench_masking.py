"""Times the masker on this machine.

  python -m tests.benchmarks.bench_masking

Rows are full: [CLS], a block of which 80% of the tokens start a word and 10% an annotated unit, and [SEP]. So every row
has the maximum number of masked tokens. Times are medians of repeated runs after compilation.
"""
import argparse
import statistics
import time

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from spanbert_jax.masking import Masker, MaskingSettings, make_masker
from tests.masking import sampler

SCHEMES = ("geometric", "whole_word", "token", "annotated", "0.8*geometric+0.2*token")
LENGTHS, BATCHES = (128, 512), (8, 32)
VOCABULARY = 28_996


def time_masker(masker: Masker, rows: dict[str, np.ndarray], batch: int, repeats: int) -> tuple[float, float]:
    """Seconds of the first call, which is mostly compilation, and the median of the following ones."""
    rows = {name: jax.device_put(array[:batch]) for name, array in rows.items()}
    keys = jax.random.split(jax.random.key(0), batch)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(masker(keys, rows))
        seconds.append(time.perf_counter() - start)
    return seconds[0], statistics.median(seconds[1:])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schemes", nargs="+", default=SCHEMES)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    table = Table(title=f"Span masking on {jax.devices()[0].device_kind}, {jax.device_count()} device(s)")
    for column in ("S", "scheme", "batch", "compile s", "ms/batch", "ms/row", "rows/s"):
        table.add_column(column, justify="left" if column == "scheme" else "right")
    for length in args.lengths:
        blocks = sampler.random_blocks(np.random.default_rng(0), max(args.batches), length - 2, 0.8, unit_fraction=0.1)
        rows = sampler.single_rows(blocks)
        for scheme in args.schemes:
            masker = make_masker(MaskingSettings(scheme=scheme), length=length, max_blocks=1,
                                 special=sampler.SPECIAL, unigram=np.ones(VOCABULARY))
            for batch in args.batches:
                compiling, seconds = time_masker(masker, rows, batch, args.repeats)
                table.add_row(str(length), scheme, str(batch), f"{compiling:.1f}", f"{seconds * 1e3:.2f}",
                              f"{seconds / batch * 1e3:.3f}", f"{batch / seconds:,.0f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
