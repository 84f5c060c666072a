"""Predict with a fine-tuned model, for files of any size. If it is stopped, the same command continues.

  spanbert-jax predict --model runs/squad --input questions.json --output answers.jsonl
  spanbert-jax predict --model runs/sentiment/model --input 'reviews/*.jsonl.gz' --output labels.jsonl
  spanbert-jax predict --model runs/sentiment --input new.csv --output labelled.csv --keep text,date
  spanbert-jax predict --model runs/coreference --input novel.txt --output chains.jsonl --html chains.html
  spanbert-jax predict --model runs/en-de --input texts.en --output texts.jsonl --official texts-de --set beams=8

The input has any format that the task trains on; labels may be missing. The output has one JSON line per prediction, in
the input's order, with the id, or line number, of the input, its file if there are several, and scores; positions are
character offsets in the input's text. If its name ends in .csv or .tsv, it is a table. Until it is complete, it is
called OUTPUT.partial.
"""
import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spanbert_jax.commands.arguments import add_task_settings
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.common.paths import STANDARD_STREAM, Paths, join_paths, stored_pipes, writable


def predict(model: str | os.PathLike, inputs: Paths, output: str | os.PathLike, *, batch_size: int = 32,
            dtype: str = "float32", settings: Mapping[str, Any] | None = None,
            official: str | os.PathLike | None = None, html: str | os.PathLike | None = None,
            keep: str | Sequence[str] = "", on_examples: Callable[[int], None] = lambda count: None) -> int:
    """Writes the predictions of a fine-tuned model for the examples of files as JSON lines, or as a table.

    Arguments and errors are those of `inference.files.predict_files`; `inputs` and `keep` may be lists too. What is
    repaired or truncated is logged.

    Returns:
      The number of predictions.
    """
    from spanbert_jax.common.issues import log_issues
    from spanbert_jax.inference.files import predict_files
    from spanbert_jax.training.experiment import use_compilation_cache
    use_compilation_cache()
    counts = [0]

    def count_examples(count: int) -> None:
        counts.append(count)
        on_examples(count)

    with stored_pipes(join_paths(inputs)) as stored:
        log_issues(predict_files(model, stored, output, batch_size=batch_size, dtype=dtype, settings=settings,
                                 official=official, html=html, keep=join_paths(keep), on_examples=count_examples))
    return counts[-1]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this command."""
    parser.add_argument("--model", required=True, metavar="DIR",
                        help="workdir of a finished fine-tuning run, or its directory `model`")
    parser.add_argument("--input", required=True, metavar="FILES",
                        help="files, folders or globs, separated by commas; - for standard input")
    parser.add_argument("--output", required=True, metavar="FILE", help="file to create; - for standard output")
    parser.add_argument("--official", metavar="DIR", help="directory to create with the predictions in the task's "
                        "official formats too, such as those of SQuAD and GLUE, or plain lines of generated texts")
    parser.add_argument("--html", metavar="FILE", help="file to create with a page that shows the predictions in their "
                        "texts, such as coreference chains in colour")
    parser.add_argument("--keep", metavar="FIELDS", default="", help="fields of the input's table or JSON lines to "
                        "write as `input` next to each prediction, such as text,label; separated by commas, or all; "
                        "left out where a record lacks them")
    parser.add_argument("--batch-size", type=int, default=32, metavar="ROWS",
                        help="rows per device and batch; does not change the predictions (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32",
                        help="type of the computation (default: %(default)s)")
    add_task_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Predicts, and prints the number of predictions."""
    began = time.monotonic()
    first: list[int] = []  # examples that were done before this call

    def show(count: int) -> None:
        if not first:
            first.append(count)
            if count:
                print(f"Continuing after {format_plural(count, 'example')}.", file=sys.stderr)
        elif sys.stderr.isatty():
            speed = (count - first[0]) / (time.monotonic() - began)
            print(f"\r{format_plural(count, 'example')}, {speed:,.1f} per second", end="", file=sys.stderr, flush=True)

    with writable(args.output) as output:
        count = predict(args.model, args.input, output, batch_size=args.batch_size, dtype=args.dtype,
                        settings=dict(args.set), official=args.official, html=args.html, keep=args.keep,
                        on_examples=show)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(f"{format_plural(count, 'prediction')} in {time.monotonic() - began:,.1f} s: {args.output}",
          file=sys.stderr if args.output == STANDARD_STREAM else sys.stdout)
    return 0
