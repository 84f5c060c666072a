"""Evaluate a model: a pretrained one on the validation rows of its corpus, with the same mask each time; a fine-tuned
one on labelled files.

  spanbert-jax evaluate --workdir runs/quickstart
  spanbert-jax evaluate --workdir runs/quickstart --step 1000 --json
  spanbert-jax evaluate --workdir runs/squad --input dev-v1.1.json --out predictions/squad
"""
import argparse
import json
import pathlib
import sys

from spanbert_jax.commands.arguments import add_process_arguments, add_step, add_task_settings, join_processes
from spanbert_jax.common.console import make_console
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_metric
from spanbert_jax.common.issues import format_issues


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this command."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="workdir of the training run")
    add_step(parser)
    parser.add_argument("--input", metavar="FILES",
                        help="for a fine-tuned model: labelled files, folders or globs, separated by commas")
    parser.add_argument("--out", metavar="DIR", help="directory to create with its predictions in the official formats")
    add_task_settings(parser)
    parser.add_argument("--json", action="store_true", help="print the metrics as one line of JSON")
    add_process_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluates and prints the metrics."""
    fine_tuned = (pathlib.Path(args.workdir) / "task.json").is_file() or args.input
    if fine_tuned and args.step is not None:
        raise UserError(f"--step {args.step}: a fine-tuned model is always that of its best step; omit --step")
    for flag, value in (("--out", args.out), ("--set", args.set)):
        if value and not args.input:
            raise UserError(f"{flag}: applies to the predictions for --input; give --input too")
    if fine_tuned:
        return _score(args) if args.input else _print_results(args)
    join_processes(args)
    from spanbert_jax.cluster.agreement import is_process_zero
    from spanbert_jax.pretraining.evaluation import accuracy_table, format_metrics
    from spanbert_jax.pretraining.run import evaluate
    metrics = evaluate(args.workdir, args.step)
    if is_process_zero() and args.json:
        print(json.dumps(metrics))
    elif is_process_zero():
        print(f"step {metrics['step']:,}: {metrics['masked_tokens']:,} masked tokens of validation documents: "
              f"{format_metrics(metrics)}")
        make_console().print(accuracy_table(metrics))
    return 0


def _print_results(args: argparse.Namespace) -> int:
    """Prints the results that a finished fine-tuning run has stored."""
    try:
        results = json.loads((pathlib.Path(args.workdir) / "results.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{args.workdir}: this fine-tuning run has not finished; start its command again, or "
                        "evaluate a model with --workdir MODEL and --input LABELLED_FILES") from None
    print(json.dumps(results, indent=None if args.json else 2))
    return 0


def _score(args: argparse.Namespace) -> int:
    """Scores a fine-tuned model on labelled files."""
    from spanbert_jax.inference.files import score_files
    from spanbert_jax.training.experiment import use_compilation_cache
    use_compilation_cache()
    metrics, issues = score_files(args.workdir, args.input, args.out, settings=dict(args.set))
    for line in format_issues(issues):
        print(line, file=sys.stderr)
    if args.json:
        print(json.dumps(metrics))
    else:
        for name, value in metrics.items():
            print(f"{name:24} {format_metric(value)}")
    return 0
