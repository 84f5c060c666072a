"""Measure a trained network on the held-out rows of its corpus, under a mask that is always the same.

  spanbert-jax evaluate --workdir runs/quickstart
  spanbert-jax evaluate --workdir runs/quickstart --step 1000 --json
"""
from __future__ import annotations

import argparse
import json

import rich.console

from spanbert_jax.commands import joining


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this verb."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="of the training run")
    parser.add_argument("--step", type=int, help="of the checkpoint; the newest if not given")
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    joining.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluates and prints the figures."""
    joining.join(args)
    from spanbert_jax.cluster.agreement import is_first
    from spanbert_jax.training import evaluate
    from spanbert_jax.training.display import accuracy_table, evaluation_words
    figures = evaluate(args.workdir, args.step)
    if not is_first():
        return 0
    if args.json:
        print(json.dumps(figures))
        return 0
    print(f"step {figures['step']:,}: {figures['masked_tokens']:,} masked tokens of held-out documents: "
          f"{evaluation_words(figures)}")
    rich.console.Console(highlight=False).print(accuracy_table(figures))
    return 0
