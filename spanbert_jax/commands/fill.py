"""Fill in the [MASK]s of texts: the best tokens of the masked-token head, of the boundary head, and of both.

  spanbert-jax fill --model runs/quickstart "The [MASK] [MASK] of France is Paris."
  spanbert-jax fill --model models/spanbert --k 10 --json "It was [MASK] who won." "They [MASK] [MASK] home."

Adjacent [MASK]s are filled together. One [MASK] stands for one vocabulary entry, which may be a part of a word. "both"
is the normalized product of the distributions of the two heads.
"""
from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING

import rich.table

from spanbert_jax.commands.arguments import add_tokenizer
from spanbert_jax.common.console import make_console, make_table
from spanbert_jax.common.paths import STANDARD_STREAM, argument_text, standard_input

if TYPE_CHECKING:
    from spanbert_jax.tasks.filling import MaskRun


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this command."""
    parser.add_argument("texts", nargs="+", metavar="TEXT", type=argument_text, help="text with one [MASK] for each "
                        "token to fill in; - for the lines of standard input")
    parser.add_argument("--model", required=True, metavar="DIR",
                        help="directory, workdir, weights file or archive, or name on the Hugging Face hub")
    add_tokenizer(parser)
    parser.add_argument("--k", type=int, default=5,
                        help="fillings for each sequence of adjacent [MASK]s (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the fillings as one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Fills the [MASK]s and prints the fillings."""
    from spanbert_jax.interop.pretrained import load_tokenizer
    from spanbert_jax.tasks.filling import fill, load_filling_model
    tokenizer, model = load_tokenizer(args.tokenizer or args.model), load_filling_model(args.model)
    texts = [line for text in args.texts for line in
             (standard_input().read().decode(errors="replace").splitlines() if text == STANDARD_STREAM else [text])]
    filled = [(text, fill(model, text, args.k, tokenizer)) for text in texts]
    if args.json:
        print(json.dumps([{"text": text, "runs": list(map(dataclasses.asdict, runs))} for text, runs in filled]))
        return 0
    console = make_console()
    for text, runs in filled:
        console.print(text, soft_wrap=True)
        for number, mask_run in enumerate(runs, 1):
            console.print(f"mask run {number} of {len(runs)}, length {mask_run.length}")
            console.print(_table(mask_run))
            if mask_run.why_no_boundary:
                console.print(f"not filled by the boundary head: {mask_run.why_no_boundary}", soft_wrap=True)
    return 0


def _table(mask_run: MaskRun) -> rich.table.Table:
    columns = {"masked-token head": mask_run.masked_token, "boundary head": mask_run.boundary, "both": mask_run.both}
    columns = {name: fillings for name, fillings in columns.items() if fillings is not None}
    table = make_table(*columns)
    for fillings in zip(*columns.values()):
        table.add_row(*(f"{filling.text}  {100 * filling.probability:.3g}%" for filling in fillings))
    return table
