"""Turns text into rows for pretraining.

Example:
  spanbert-jax prepare --source 'books/*.txt' --tokenizer vocab.txt --out data/books

The directory holds a TFDS dataset in ArrayRecord with its tokenizer.json and report.json. Running the command again on
unchanged input does nothing; a changed source, tokenizer or setting is noticed.
"""
import argparse

from spanbert_jax.corpus.preparation import prepare
from spanbert_jax.corpus.rows import BLOCK_MODES
from spanbert_jax.corpus.sources import file_formats


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags; each is an argument of `spanbert_jax.prepare`."""
    parser.add_argument("--source", dest="sources", action="append", required=True, metavar="SOURCE",
                        help="file, directory, glob, 'python' (the prose in this Python installation) or "
                        "'tfds:NAME[:split]'; may be repeated")
    parser.add_argument("--out", required=True, metavar="DIR", help="directory of the corpus")
    parser.add_argument("--tokenizer", metavar="FILE", help="vocab.txt, tokenizer.json or a directory with one")
    parser.add_argument("--vocab-size", type=int, metavar="N", help="train a vocabulary of N pieces instead")
    parser.add_argument("--lowercase", action=argparse.BooleanOptionalAction, default=None,
                        help="lower-case the text (default: as the vocabulary is; not when training one)")
    parser.add_argument("--format", choices=file_formats(), default="auto",
                        help="documents: one a file, blank lines between paragraphs; blank-lines: between documents; "
                        "sentences: one a line, blank lines between documents; auto: jsonl or documents by the file's "
                        "name (default: %(default)s)")
    parser.add_argument("--text-field", default="text", metavar="NAME",
                        help="JSON field or TFDS feature with the text (default: %(default)s)")
    parser.add_argument("--annotation-field", metavar="NAME",
                        help="JSON field with [[start, end], ...] character offsets of entities or phrases")
    parser.add_argument("--length", type=int, default=512, metavar="S",
                        help="positions in a row (default: %(default)s)")
    parser.add_argument("--blocks", choices=BLOCK_MODES, default="sentences",
                        help="sentences: whole sentences up to the length; contiguous: windows; pairs: two texts with "
                        "next-sentence labels (default: %(default)s)")
    parser.add_argument("--pack", action="store_true", help="put several blocks in a row")
    parser.add_argument("--validation-fraction", type=float, default=0.01, metavar="F",
                        help="share of the characters held out, by document (default: %(default)s)")
    parser.add_argument("--short-sequence-probability", type=float, default=0.0, metavar="P",
                        help="for pairs: chance of a shorter length for a document (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random choices in pairs (default: %(default)s)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    parser.add_argument("--overwrite", action="store_true", help="replace a corpus made from something else")


def run(args: argparse.Namespace) -> int:
    """Prepares the corpus; returns the exit code."""
    names = ("sources", "out", "tokenizer", "vocab_size", "lowercase", "format", "text_field", "annotation_field",
             "length", "blocks", "pack", "validation_fraction", "short_sequence_probability", "seed", "workers",
             "overwrite")
    prepare(**{name: getattr(args, name) for name in names})
    return 0
