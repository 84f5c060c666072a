"""Tokens per second and core of `prepare`, and of the tokenizer alone.

  python -m tests.benchmarks.bench_prepare [FOLDER]

Seconds are processor time, including that of worker processes, so other programs on the machine matter little.
"""
import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core for the timings of a single process

from rich.console import Console
from rich.table import Table

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.corpus import prepare
from spanbert_jax.corpus.rows import RowBuilder, RowSettings, make_chunks
from spanbert_jax.corpus.settings import CorpusSettings
from spanbert_jax.corpus.sources import FieldNames, read_documents, resolve_sources
from spanbert_jax.text import load_tokenizer, sentence_spans
from tests.paths import DATA

VOCABULARY = DATA / "vocab" / "bert-base-cased-vocab.txt"


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=str(DATA / "litbank" / "original"),
                        help="folder of text files (default: LitBank's novels)")
    folder = parser.parse_args().folder
    tokenizer = load_tokenizer(VOCABULARY)
    files = resolve_sources([folder], "auto")
    documents = [document for file in files for document in read_documents(file, FieldNames(), DataIssues())]
    texts = [document.text[a:b] for document in documents for a, b in sentence_spans(document.text)]
    table = Table("operation", "tokens", "tokens/s/core", title=f"prepare: {len(documents)} documents of {folder}")

    def tokenizer_alone() -> int:
        return sum(len(encoding) for start in range(0, len(texts), 2000)
                   for encoding in tokenizer.encode_batch_fast(texts[start:start + 2000], add_special_tokens=False))

    def rows(blocks: str, pack: bool) -> int:
        make = RowBuilder(RowSettings(tokenizer.to_str(), CorpusSettings(
            blocks=blocks, pack=pack, short_sequence_probability=0.1), 0))
        return sum(make(chunk)[1].counts["tokens"] for chunk in make_chunks(documents, 0, blocks))

    def whole() -> int:
        with tempfile.TemporaryDirectory() as scratch:
            return prepare(folder, f"{scratch}/out", tokenizer=VOCABULARY, progress=False).report["tokens"]

    jobs: list[tuple[str, Callable[[], int]]] = [
        ("tokenizer alone, by sentence", tokenizer_alone),
        *((f"rows: {blocks}{', packed' if pack else ''}", lambda blocks=blocks, pack=pack: rows(blocks, pack))
          for blocks, pack in [("sentences", False), ("sentences", True), ("contiguous", False), ("pairs", False)]),
        ("prepare, start to end", whole)]
    for name, job in jobs:
        begin, wall = _processor_seconds(), time.monotonic()
        tokens = job()
        seconds, wall = _processor_seconds() - begin, time.monotonic() - wall
        table.add_row(name, f"{tokens:,}", f"{tokens / seconds:,.0f} ({wall:.1f} s)")
    Console().print(table)


def _processor_seconds() -> float:
    return sum(usage.ru_utime + usage.ru_stime for usage in map(
        resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


if __name__ == "__main__":
    main()
