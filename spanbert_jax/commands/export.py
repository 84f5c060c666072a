"""Take a network out, in the format of another library.

  spanbert-jax export --workdir runs/quickstart --format huggingface --out models/quickstart
  spanbert-jax export --workdir models/spanbert --format onnx --out models/spanbert-onnx

  huggingface   a directory of transformers; a span boundary head goes along in a file that transformers ignores
  reference     config.json, vocab.txt and pytorch_model.bin under the names of the original (needs torch)
  tensorflow    a SavedModel (needs tensorflow)
  onnx          model.onnx for any batch and length (needs onnx)
  stablehlo     a function by jax.export for CPU, GPU and TPU, and its weights

At the end the same inputs go through what was written, by the library it is for where that is installed, and through
the network here, and nothing is left if they disagree.
"""
from __future__ import annotations

import argparse
import pathlib

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.formats import FORMATS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this verb."""
    parser.add_argument("--workdir", required=True, metavar="DIR",
                        help="of a training run, or whatever `import` takes")
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument("--out", required=True, metavar="DIR", help="directory to be made")
    parser.add_argument("--step", type=int, help="of the checkpoint in a workdir; the newest if not given")
    parser.add_argument("--tokenizer", metavar="FILE", help="where none comes with the network")


def run(args: argparse.Namespace) -> int:
    """Exports, and says what was written."""
    from spanbert_jax.commands.models import carry_writer, describe, say_what_was_written
    from spanbert_jax.common.directories import require_absent_or_empty
    from spanbert_jax.interop.exporting import export
    from spanbert_jax.interop.pretrained import find_tokenizer, load_params, open_pretrained
    from spanbert_jax.interop.sources.location import encoder_decoder_at
    require_absent_or_empty(args.out)
    if path := encoder_decoder_at(args.workdir):
        if args.format != "huggingface":
            raise UserError(f"--format {args.format}: {path} is a network that writes; allowed is huggingface")
        if args.step is not None:
            raise UserError(f"--step {args.step}: {path} is a network that writes, with its own; leave it out")
        return carry_writer(path, args.out, None, args.tokenizer)
    pretrained = open_pretrained(args.workdir, step=args.step)
    model = pretrained.model(pretrained.head)
    facts, step = pretrained.facts, ""
    if facts:
        facts |= {"evaluation": _evaluation(pretrained.path, facts["step"])}
        step = f", step {facts['step']:,}"
    print(f"{pretrained.path}{step}: {describe(model)}")
    tokenizer, why_none = find_tokenizer(pretrained, args.tokenizer)
    params = load_params(pretrained, model)
    comparison = export(model, params, args.out, args.format, tokenizer, facts)
    say_what_was_written(args.out, comparison, why_none)
    return 0


def _evaluation(workdir: pathlib.Path, step: int) -> dict | None:
    """The figures of the last evaluation of a run up to a step."""
    from spanbert_jax.training.trackers import METRICS_FILE, read_metrics
    if not (workdir / METRICS_FILE).is_file():
        return None
    lines = [line for line in read_metrics(workdir) if line["kind"] == "evaluation" and line["step"] <= step]
    return lines[-1] if lines else None
