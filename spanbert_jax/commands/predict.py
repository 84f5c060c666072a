"""Predict with a fine-tuned model, for files of any size. If it is stopped, the same command continues.

  spanbert-jax predict --model runs/squad --input questions.json --output answers.jsonl
  spanbert-jax predict --model runs/sentiment/model --input 'reviews/*.jsonl.gz' --output labels.jsonl
  spanbert-jax predict --model runs/en-de --input texts.en --output texts.jsonl --official texts-de --set beams=8

The input has any format that the task trains on; labels may be missing. The output has one JSON line per prediction, in
the input's order, with scores; positions are character offsets in the input's text. Until it is complete, it is called
OUTPUT.partial.
"""
import argparse
import sys
import time

from spanbert_jax.commands.arguments import add_task_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this command."""
    parser.add_argument("--model", required=True, metavar="DIR",
                        help="workdir of a finished fine-tuning run, or its directory `model`")
    parser.add_argument("--input", required=True, metavar="FILES", help="files, folders or globs, separated by commas")
    parser.add_argument("--output", required=True, metavar="FILE", help="file to create")
    parser.add_argument("--official", metavar="DIR", help="directory to create with the predictions in the task's "
                        "official formats too, such as those of SQuAD and GLUE, or plain lines of generated texts")
    parser.add_argument("--batch-size", type=int, default=32, metavar="ROWS",
                        help="rows per device and batch; does not change the predictions (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32",
                        help="type of the computation (default: %(default)s)")
    add_task_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Predicts, and prints the number of predictions."""
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
            print(f"Continuing after {count:,} examples.", file=sys.stderr)
        elif sys.stderr.isatty():
            print(f"\r{count:,} examples, {(count - counts[0]) / (time.monotonic() - began):,.1f} per second", end="",
                  file=sys.stderr, flush=True)

    issues = predict_files(args.model, args.input, args.output, batch_size=args.batch_size, dtype=args.dtype,
                           settings=dict(args.set), official=args.official, on_examples=show)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    for line in format_issues(issues):
        print(line, file=sys.stderr)
    print(f"{counts[-1]:,} predictions in {time.monotonic() - began:,.1f} s: {args.output}")
    return 0
