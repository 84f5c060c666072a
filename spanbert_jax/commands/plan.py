"""What a run needs and how long it takes, on hardware that need not be there: the real step, compiled for it.

  spanbert-jax plan --config configs/base.py --topology v5e:16x16
  spanbert-jax plan --config configs/large.py --topology v5e:8x8,v5p:4x4x4,4*v6e:16x16 --config.train.batch_size=4096
  spanbert-jax plan --config configs/large.py --topology v5e:8x8 --search
  spanbert-jax plan --budget "32 v5e chips, 3 days, 20B tokens"

Topologies: TPU slices v4:4x4x4, v5e:16x16, v5p:8x8x16, v6e:8x8, several of them as 4*v5e:16x16, h100:128, cpu:8. The
corpus need not have been prepared. A compilation takes minutes, once: what it says is kept. For TPUs the compiler comes
with `pip install 'jax[tpu]'`, on any Linux machine.
"""
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import ml_collections

from spanbert_jax.cluster.exit_codes import DONE, FAILED
from spanbert_jax.commands.configs import load_config
from spanbert_jax.commands.train import parse as parse_with_overrides
from spanbert_jax.common.console import table_text
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_count, format_duration

if TYPE_CHECKING:
    from spanbert_jax.planning.hardware import Topology


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this verb."""
    parser.add_argument("--config", metavar="FILE[:ARG]", help="config file, such as configs/base.py")
    parser.add_argument("--topology", metavar="T[,T...]", help="one or several, such as v5e:16x16,v5p:4x4x4")
    parser.add_argument("--search", action="store_true",
                        help="try accumulation, rematerialisation and sharding, and say which is fastest")
    parser.add_argument("--budget", metavar="TEXT", help="list what each named size would reach with what you have, "
                        "such as '32 v5e chips, 3 days, 20B tokens'")


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Flags, with the overrides of the config's fields in `overrides`."""
    args = parse_with_overrides(parser, argv)
    if bool(args.budget) == bool(args.config and args.topology):
        parser.error("give either --budget, or --config and --topology")
    return args


def run(args: argparse.Namespace) -> int:
    """Prints the plan. The status is 1 where nothing of what was asked for fits."""
    if args.budget:
        print(budget_words(args.budget))
        return DONE
    config = load_config(args.config, args.overrides)
    if "task" in config:
        raise UserError(f"--config={args.config}: a config of a task; plans are of pretraining, which takes days")
    os.environ["JAX_PLATFORMS"] = "cpu"  # no device of this machine is needed, so none is taken
    from spanbert_jax.planning.hardware import parse_topology
    from spanbert_jax.planning.plans import make_plan
    from spanbert_jax.planning.report import compare, describe
    from spanbert_jax.planning.search import is_too_large
    topologies = [parse_topology(text) for text in args.topology.split(",")]
    if args.search:
        for topology in topologies:
            print(search_words(config, topology), flush=True)
        return DONE
    plans, mistakes = [], []
    for topology in topologies:
        if len(topologies) > 1:
            print(f"{topology} ...", flush=True)
        try:
            plans.append(make_plan(config, topology))
        except UserError as error:
            if len(topologies) == 1:
                raise
            mistakes.append(f"{topology}: {error}")
    if plans:
        print(describe(plans[0]) if len(topologies) == 1 else compare(plans))
    for mistake in mistakes:
        print(mistake)
    return DONE if plans and not all(map(is_too_large, plans)) else FAILED


def search_words(config: ml_collections.ConfigDict, topology: Topology) -> str:
    """What has been tried, the fastest that fits, and its settings to paste."""
    from spanbert_jax.planning.report import compare, describe
    from spanbert_jax.planning.search import as_flags, in_short, search
    found = search(config, topology, lambda line: print(line, flush=True))
    (overrides, plan), settings = found[0], [in_short(overrides) for overrides, _ in found]
    what = "The fastest" if plan.estimate else "The first"  # without times they are in the order of the trials
    return "\n".join(["", compare([plan for _, plan in found], settings), "", describe(plan), "",
                      f"{what} that fits on {topology}:", f"  {as_flags(overrides)}"])


def budget_words(text: str) -> str:
    """What each named size would reach, and which to take."""
    from spanbert_jax.planning.budget import UTILIZATION, best, choices, parse_budget
    from spanbert_jax.planning.hardware import nearest_topology
    budget = parse_budget(text)
    found = choices(budget)
    rows = [(choice.size, format_count(choice.parameters), "yes" if choice.fits else "spread it: mesh.fsdp",
             format_count(choice.tokens_per_second), format_count(choice.tokens) if choice.tokens else "-",
             f"{choice.tokens / choice.parameters:,.0f}" if choice.tokens else "-",
             format_duration(choice.seconds) if choice.seconds else "-") for choice in found]
    columns = ("size", "parameters", "fits a chip", "tokens/s", "tokens in the time", "a parameter",
               f"time for {format_count(budget.tokens)} tokens" if budget.tokens else "time for the tokens")
    lines = [table_text(columns, rows), "",
             f"Arithmetic: rows of 512 tokens, AdamW, {UTILIZATION[budget.kind]:.0%} of the peak of {budget.chips:,} "
             f"{budget.kind}, less below the width of base.",
             "`plan --config --topology` compiles the step and knows better."]
    choice = best(budget, found)
    if choice is None:
        return "\n".join([*lines, "No named size gets there; take more time or chips, or fewer tokens."])
    return "\n".join([*lines, f"The largest that gets there: {choice.size}.", "Next:",
                      "  spanbert-jax plan --config configs/base.py --config.model.size="
                      f"{choice.size} --topology {nearest_topology(budget.kind, budget.chips)}"])
