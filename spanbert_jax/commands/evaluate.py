"""Measure a network: a pretrained one on the held-out rows of its corpus, under a mask that is always the same; one
fine-tuned for a task on labelled files.

  spanbert-jax evaluate --workdir runs/quickstart
  spanbert-jax evaluate --workdir runs/quickstart --step 1000 --json
  spanbert-jax evaluate --workdir runs/squad --input dev-v1.1.json --out predictions/squad
"""
from __future__ import annotations

import argparse
import json
import pathlib
import sys

from spanbert_jax.commands import joining, task_settings
from spanbert_jax.common.console import make_console
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_metric
from spanbert_jax.common.issues import format_issues


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this verb."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="of the training run")
    parser.add_argument("--step", type=int, help="of the checkpoint; the newest if not given")
    parser.add_argument("--input", metavar="FILES",
                        help="labelled files, folders or globs, separated by commas, for a fine-tuned network")
    parser.add_argument("--out", metavar="DIR", help="directory to be made for its predictions in the official formats")
    task_settings.add_argument(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    joining.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluates and prints the figures."""
    of_task = (pathlib.Path(args.workdir) / "task.json").is_file() or args.input
    if of_task and args.step is not None:
        raise UserError(f"--step {args.step}: a fine-tuned network is that of its best step; leave it out")
    for flag, value in (("--out", args.out), ("--set", args.set)):
        if value and not args.input:
            raise UserError(f"{flag}: it is for predictions of --input; give that too")
    if of_task:
        return _score(args) if args.input else _say_results(args)
    joining.join(args)
    from spanbert_jax.cluster.agreement import is_process_zero
    from spanbert_jax.pretraining.evaluation import accuracy_table, format_metrics
    from spanbert_jax.pretraining.run import evaluate
    figures = evaluate(args.workdir, args.step)
    if not is_process_zero():
        return 0
    if args.json:
        print(json.dumps(figures))
        return 0
    print(f"step {figures['step']:,}: {figures['masked_tokens']:,} masked tokens of held-out documents: "
          f"{format_metrics(figures)}")
    make_console().print(accuracy_table(figures))
    return 0


def _say_results(args: argparse.Namespace) -> int:
    """Prints what a finished run has found itself to be worth."""
    try:
        results = json.loads((pathlib.Path(args.workdir) / "results.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{args.workdir}: a run of a task that has not finished; start its command again, or give its "
                        "model by --workdir and labelled files by --input") from None
    print(json.dumps(results, indent=None if args.json else 2))
    return 0


def _score(args: argparse.Namespace) -> int:
    """Scores a fine-tuned network."""
    from spanbert_jax.inference.scoring import score_files
    from spanbert_jax.training.experiment import use_compilation_cache
    use_compilation_cache()
    figures, faults = score_files(args.workdir, args.input, args.out, settings=dict(args.set))
    for line in format_issues(faults):
        print(line, file=sys.stderr)
    if args.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:24} {format_metric(value)}")
    return 0
