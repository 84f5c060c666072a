"""Fill in the [MASK]s of texts: the best pieces by the masked-token head, by the boundary head, and by both.

  spanbert-jax fill --model runs/quickstart "The [MASK] [MASK] of France is Paris."
  spanbert-jax fill --model models/spanbert --k 10 --json "It was [MASK] who won." "They [MASK] [MASK] home."

Adjacent [MASK]s are filled together. One [MASK] is one piece of the vocabulary, which may be less than a word.
"""
from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING

import rich.table

from spanbert_jax.common.console import make_console, make_table

if TYPE_CHECKING:
    from spanbert_jax.tasks.filling import Filling, MaskRun


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this verb."""
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="with one [MASK] for each piece to be filled in")
    parser.add_argument("--model", required=True, metavar="DIR",
                        help="directory, workdir, file of weights or archive, or a name on the Hugging Face hub")
    parser.add_argument("--tokenizer", metavar="FILE", help="where none comes with the model")
    parser.add_argument("--k", type=int, default=5, help="fillings of each run of [MASK]s (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the fillings as one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Fills and prints the fillings."""
    from spanbert_jax.interop.pretrained import load_tokenizer
    from spanbert_jax.tasks.filling import fill, load_network
    tokenizer, network = load_tokenizer(args.tokenizer or args.model), load_network(args.model)
    filled = [(text, fill(network, text, args.k, tokenizer)) for text in args.texts]
    if args.json:
        print(json.dumps([{"text": text, "runs": list(map(dataclasses.asdict, runs))} for text, runs in filled]))
        return 0
    console = make_console()
    for text, runs in filled:
        console.print(text, soft_wrap=True)
        for number, mask_run in enumerate(runs, 1):
            console.print(f"run {number} of {len(runs)}, {mask_run.length} x [MASK]")
            console.print(_table(mask_run))
            if mask_run.why_no_boundary:
                console.print(f"not by the boundary head: {mask_run.why_no_boundary}", soft_wrap=True)
    return 0


def _table(mask_run: MaskRun) -> rich.table.Table:
    columns = {"masked-token head": mask_run.masked_token, "boundary head": mask_run.boundary, "both": mask_run.both}
    columns = {name: fillings for name, fillings in columns.items() if fillings is not None}
    table = make_table(*columns)
    for fillings in zip(*columns.values()):
        table.add_row(*map(_cell, fillings))
    return table


def _cell(filling: Filling) -> str:
    return f"{filling.text}  {100 * filling.probability:.3g}%"
