"""Turns text into rows for pretraining.

Example:
  spanbert-jax prepare --source 'books/*.txt' --tokenizer vocab.txt --out data/books

The directory holds a TFDS dataset in ArrayRecord with its tokenizer.json and report.json. Running the command again on
unchanged input does nothing; a changed source, tokenizer or setting is an error that names the change.
"""
import argparse
import contextlib
import dataclasses

from spanbert_jax.common.paths import stored_pipes
from spanbert_jax.common.settings import choices_of
from spanbert_jax.corpus.preparation import prepare_corpus
from spanbert_jax.corpus.settings import CorpusSettings

# Flags that belong to one call, and not to the corpus settings.
_CALL = ("out", "lowercase", "seed", "workers", "overwrite")
_METAVARS = {str: "TEXT", int: "N", float: "F"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for each field of `CorpusSettings`, and those of the call."""
    for field in dataclasses.fields(CorpusSettings):
        _add_field(parser, field)
    parser.add_argument("--out", required=True, metavar="DIR", help="Directory of the corpus.")
    parser.add_argument("--lowercase", action=argparse.BooleanOptionalAction, default=None,
                        help="Lower-case the text (default: as the vocabulary is; not when training one).")
    parser.add_argument("--seed", type=int, default=0, metavar="N",
                        help="Seed of the random choices in pairs (default: %(default)s).")
    parser.add_argument("--workers", type=int, metavar="N", help="Processes (default: one per core).")
    parser.add_argument("--overwrite", action="store_true", help="Replace a corpus with other sources or settings.")


def run(args: argparse.Namespace) -> int:
    """Prepares the corpus; returns the exit code."""
    settings = CorpusSettings(**{field.name: getattr(args, field.name) for field in dataclasses.fields(CorpusSettings)})
    with contextlib.ExitStack() as stack:
        sources = tuple(stack.enter_context(stored_pipes(source)) for source in settings.sources)
        prepare_corpus(settings.replace(sources=sources), **{name: getattr(args, name) for name in _CALL})
    return 0


def _add_field(parser: argparse.ArgumentParser, field: dataclasses.Field) -> None:
    flag, text = f"--{field.name.replace('_', '-')}", field.metadata["help"].replace("%", "%%")
    if field.name == "sources":
        parser.add_argument("--source", dest="sources", action="append", required=True, metavar="SOURCE",
                            help=f"{text} Repeat the flag for several, or separate them by commas; - is standard "
                            "input.")
    elif isinstance(field.default, bool):
        parser.add_argument(flag, action="store_true", help=text)
    else:
        kind = type(field.default)
        shown = " (default: %(default)s)" if field.default or kind is float else ""
        parser.add_argument(flag, type=kind, default=field.default, choices=choices_of(field),
                            metavar=None if choices_of(field) else _METAVARS[kind], help=text.rstrip(".") + shown + ".")
