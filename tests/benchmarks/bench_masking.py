"""Times the masker on this machine: `python -m tests.benchmarks.bench_masking`. Prints one table.

Rows are full ([CLS], a block with 80 % word starts and a tenth of its tokens starting annotated units, [SEP]), so every
row has its largest budget. Times are medians of repeated runs after compilation.
"""
import statistics
import time

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from spanbert_jax.masking import Masker, MaskingSettings, make_masker
from tests.masking import sampler

SCHEMES = ("geometric", "whole_word", "token", "annotated", "0.8*geometric+0.2*token")
LENGTHS, BATCHES, REPEATS = (128, 512), (8, 32), 30
VOCABULARY = 28_996


def time_masker(masker: Masker, rows: dict[str, np.ndarray], batch: int) -> tuple[float, float]:
    """Seconds that the first call takes (nearly all compilation), and the median of the following ones."""
    rows = {name: jax.device_put(array[:batch]) for name, array in rows.items()}
    keys = jax.random.split(jax.random.key(0), batch)
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        jax.block_until_ready(masker(keys, rows))
        seconds.append(time.perf_counter() - start)
    return seconds[0], statistics.median(seconds[1:])


def main() -> None:
    """Prints the table."""
    table = Table(title=f"Span masking on {jax.devices()[0].device_kind}, {jax.device_count()} device(s)")
    for column in ("S", "scheme", "batch", "compile s", "ms/batch", "ms/row", "rows/s"):
        table.add_column(column, justify="left" if column == "scheme" else "right")
    for length in LENGTHS:
        blocks = sampler.random_blocks(np.random.default_rng(0), max(BATCHES), length - 2, 0.8, unit_fraction=0.1)
        rows = sampler.single_rows(blocks)
        for scheme in SCHEMES:
            masker = make_masker(MaskingSettings(scheme=scheme), length=length, max_blocks=1,
                                 special=sampler.SpecialIds(), unigram=np.ones(VOCABULARY))
            for batch in BATCHES:
                compiling, seconds = time_masker(masker, rows, batch)
                table.add_row(str(length), scheme, str(batch), f"{compiling:.1f}", f"{seconds * 1e3:.2f}",
                              f"{seconds / batch * 1e3:.3f}", f"{batch / seconds:,.0f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
