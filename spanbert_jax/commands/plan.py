"""Plan a run: its memory, speed and duration, by compiling the real train step for hardware that you need not have.

  spanbert-jax plan --config configs/base.py --topology v5e:16x16
  spanbert-jax plan --config configs/large.py --topology v5e:8x8,v5p:4x4x4,4*v6e:16x16 --config.train.batch_size=4096
  spanbert-jax plan --config configs/large.py --topology v5e:8x8 --search
  spanbert-jax plan --budget "32 v5e chips, 3 days, 20B tokens"

Topologies: TPU slices v4:4x4x4, v5e:16x16, v5p:8x8x16, v6e:8x8, several slices as 4*v5e:16x16; GPUs a100:8, h100:128,
h200:8, b200:8; the CPU of this machine, cpu. The corpus need not be prepared. A compilation takes minutes; its result
is cached. The TPU compiler comes with `pip install 'jax[tpu]'`, on any Linux machine.
"""
import argparse
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spanbert_jax.cluster.exit_codes import DONE, FAILED
from spanbert_jax.commands.config_files import Config, as_run_config, load_config
from spanbert_jax.commands.train import parse as parse_with_overrides
from spanbert_jax.common.console import table_text
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_count, format_duration
from spanbert_jax.planning.hardware import CHIPS, Topology, nearest_topology, parse_topology

if TYPE_CHECKING:
    from spanbert_jax.planning.plans import Plan
    from spanbert_jax.pretraining.config import PretrainingConfig


def plan(config: Config, topology: str | Topology) -> "Plan":
    """Plans a pretraining run on a topology, such as "v5e:16x16", by compiling its train step.

    Raises:
      UserError: the config is that of a task, or not valid, or does not fit the topology, or there is no such topology
        or no compiler for it.
    """
    from spanbert_jax.planning.plans import make_plan
    return make_plan(_pretraining_config(config), parse_topology(topology) if isinstance(topology, str) else topology)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this command."""
    parser.add_argument("--config", metavar="FILE[:ARG]", help="config file, such as configs/base.py")
    parser.add_argument("--topology", metavar="T[,T...]", help="one or several, such as v5e:16x16,v5p:4x4x4")
    parser.add_argument("--search", action="store_true",
                        help="find the fastest microbatches, rematerialization and sharding that fit")
    parser.add_argument("--price", action="append", default=[], metavar="KIND=P[,...]",
                        help="price of a chip-hour by kind of chip, such as v5e=1.2,h100=3, for the cost of the run")
    parser.add_argument("--budget", metavar="TEXT", help="list what each named size of BERT reaches with the given "
                        "chips, time and tokens, such as '32 v5e chips, 3 days, 20B tokens'")


def prices(texts: Sequence[str]) -> dict[str, float]:
    """Prices of a chip-hour by kind of chip. Raises UserError if a text is not a list of them, or repeats a kind."""
    found = dict[str, float]()
    for part in ",".join(texts).split(",") if texts else ():
        kind, _, amount = part.partition("=")
        if kind not in CHIPS or not re.fullmatch(r"\d+(\.\d+)?", amount) or not float(amount):
            raise UserError(f"--price {part!r}: write it as v5e=1.2, above 0, with one of {', '.join(CHIPS)}")
        if kind in found:
            raise UserError(f"--price {part!r}: the price of {kind} is given twice; give it once")
        found[kind] = float(amount)
    return found


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parses the arguments; `overrides` has those of the config's fields."""
    args = parse_with_overrides(parser, argv)
    of_config = [args.config, args.topology, args.search, args.overrides]
    if any(of_config) if args.budget else not (args.config and args.topology):
        parser.error("give either --budget, which reads no config, or --config and --topology")
    args.price = prices(args.price)
    return args


def run(args: argparse.Namespace) -> int:
    """Prints the plan; the status is 1 if the run fits on none of the topologies."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # planning needs no accelerator of this machine
    if args.budget:
        print(budget_text(args.budget, args.price))
        return DONE
    config = _pretraining_config(load_config(args.config, args.overrides))
    topologies = list(map(parse_topology, args.topology.split(",")))
    if args.search:
        for topology in topologies:
            print(search_text(config, topology, args.price), flush=True)
        return DONE
    return _print_plans(config, topologies, args.price)


def _pretraining_config(config: Config) -> "PretrainingConfig":
    from spanbert_jax.pretraining.config import PretrainingConfig
    typed = as_run_config(config)
    if not isinstance(typed, PretrainingConfig):
        raise UserError("config: configures a task; only pretraining can be planned")
    return typed


def _print_plans(config: "PretrainingConfig", topologies: Sequence[Topology], prices: Mapping[str, float]) -> int:
    from spanbert_jax.planning.report import compare, describe
    if len(topologies) == 1:
        made = plan(config, topologies[0])
        print(describe(made, prices.get(made.topology.kind, 0.0)))
        return DONE if made.fits else FAILED
    plans, errors = [], []
    for topology in topologies:
        print(f"{topology} ...", flush=True)
        try:
            plans.append(plan(config, topology))
        except UserError as error:
            errors.append(f"{topology}: {error}")
    if plans:
        print(compare(plans, prices=prices))
    for message in errors:
        print(message)
    return DONE if any(made.fits for made in plans) else FAILED


def search_text(config: "PretrainingConfig", topology: Topology, prices: Mapping[str, float]) -> str:
    """A table of the settings that fit, the plan of the fastest, and its settings as arguments to paste."""
    from spanbert_jax.planning.report import compare, describe
    from spanbert_jax.planning.search import abbreviate, as_flags, search
    found = search(config, topology, lambda line: print(line, flush=True))
    overrides, best = found[0]
    table = compare([made for _, made in found], [abbreviate(overrides) for overrides, _ in found], prices)
    rank = "Fastest" if best.time else "First"  # without an estimated time the order is that of the trials
    return "\n".join(["", table, "", describe(best, prices.get(topology.kind, 0.0)), "",
                      f"{rank} settings that fit on {topology}:", f"  {as_flags(overrides)}"])


def budget_text(text: str, prices: Mapping[str, float]) -> str:
    """A table of what each named size reaches with a budget, and which one to choose."""
    from spanbert_jax.planning.budget import LENGTH, UTILIZATION, estimate_sizes, largest_feasible, parse_budget
    budget = parse_budget(text)
    estimates, price = estimate_sizes(budget), prices.get(budget.kind, 0.0)
    rows = [(each.size, format_count(each.parameters), "yes" if each.fits else "if sharded: mesh.fsdp",
             format_count(each.tokens_per_second), format_count(each.tokens) if each.tokens else "-",
             f"{each.tokens / each.parameters:,.0f}" if each.tokens else "-",
             format_duration(each.seconds) if each.seconds else "-",
             f"{price * budget.chips * (each.seconds or budget.seconds) / 3600:,.0f}") for each in estimates]
    columns = ("size", "parameters", "fits a chip", "tokens/s", "tokens in the time", "per parameter",
               f"time for {format_count(budget.tokens)} tokens" if budget.tokens else "time for the tokens",
               "cost of the tokens" if budget.tokens else "cost of the time")[:None if price else -1]
    lines = [table_text(columns, [row[:len(columns)] for row in rows]), "",
             f"Assumes rows of {LENGTH} tokens, AdamW, {UTILIZATION[budget.kind]:.0%} MFU on {budget.chips:,} "
             f"{budget.kind}, and less below the width of base.",
             "`plan --config --topology` compiles the train step and is more exact."]
    if choice := largest_feasible(budget, estimates):
        return "\n".join([*lines, f"Largest feasible size: {choice.size}.", "Next:",
                          "  spanbert-jax plan --config configs/base.py --config.model.size="
                          f"{choice.size} --topology {nearest_topology(budget.kind, budget.chips)}"])
    return "\n".join([*lines, "No named size is feasible; use more time or chips, or fewer tokens."])
