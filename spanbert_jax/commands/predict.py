"""Predict with a fine-tuned network, for files of any size. Stopped at any point, the same command goes on.

  spanbert-jax predict --model runs/squad --input questions.json --output answers.jsonl
  spanbert-jax predict --model runs/sentiment/model --input 'reviews/*.jsonl.gz' --output labels.jsonl
  spanbert-jax predict --model runs/en-de --input texts.en --output texts.jsonl --official texts-de --set beams=8

The input is of any format that the task trains on; what is to be predicted may be missing from it. The output is JSON
lines, one a prediction, in the input's order, with scores, and with places counted in characters of the input's text.
Until it is whole it is called OUTPUT.partial.
"""
from __future__ import annotations

import argparse
import sys
import time

from spanbert_jax.commands import task_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this verb."""
    parser.add_argument("--model", required=True, metavar="DIR",
                        help="the directory `model` of a finished fine-tuning run, or the run's workdir")
    parser.add_argument("--input", required=True, metavar="FILES", help="files, folders or globs, separated by commas")
    parser.add_argument("--output", required=True, metavar="FILE", help="file to be made")
    parser.add_argument("--official", metavar="DIR",
                        help="directory to be made for them in the task's official formats too: SQuAD's, GLUE's, plain "
                             "lines of what is written")
    parser.add_argument("--batch-size", type=int, default=32, metavar="ROWS",
                        help="rows sent to each device at once; any number gives the same predictions "
                             "(default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32",
                        help="of the computation (default: %(default)s)")
    task_settings.add_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Predicts, and says how much."""
    from spanbert_jax.common.errors import UserError
    from spanbert_jax.common.issues import format_issues
    from spanbert_jax.inference.files import predict_files
    from spanbert_jax.training.experiment import use_compilation_cache
    if args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size}: must be at least 1")
    use_compilation_cache()
    counts: list[int] = []
    began = time.monotonic()

    def show(count: int) -> None:
        counts.append(count)
        if count and len(counts) == 1:
            print(f"Going on after {count:,} examples.", file=sys.stderr)
        elif sys.stderr.isatty():
            print(f"\r{count:,} examples, {(count - counts[0]) / (time.monotonic() - began):,.1f} a second", end="",
                  file=sys.stderr, flush=True)

    faults = predict_files(args.model, args.input, args.output, batch_size=args.batch_size, dtype=args.dtype,
                           settings=dict(args.set), official=args.official, on_examples=show)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    for line in format_issues(faults):
        print(line, file=sys.stderr)
    print(f"{counts[-1]:,} predictions in {time.monotonic() - began:,.1f} s: {args.output}")
    return 0
