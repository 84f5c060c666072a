"""Export a model to the format of another library.

  spanbert-jax export --workdir runs/quickstart --format huggingface --out models/quickstart
  spanbert-jax export --workdir models/spanbert --format onnx --out models/spanbert-onnx

  huggingface   a directory for transformers; the span boundary head is in a file that transformers ignores, as is
                the task of a fine-tuned model, which `predict` reads
  reference     config.json, vocab.txt and pytorch_model.bin with the original's parameter names (needs torch)
  tensorflow    a SavedModel (needs tensorflow)
  onnx          model.onnx for any batch size and length (needs onnx)
  stablehlo     a function exported by jax.export for CPU, GPU and TPU, and its weights

At the end the exported model, run by the other library if that is installed, and the original are compared on the same
inputs, and the tokenizer is read again; if outputs or ids differ, the export is deleted.
"""
import argparse
import pathlib
from typing import TYPE_CHECKING

from spanbert_jax.cluster.exit_codes import DONE
from spanbert_jax.commands.arguments import add_step, add_tokenizer
from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.formats import FORMATS

if TYPE_CHECKING:
    from spanbert_jax.commands.conversion import Converted


def export(workdir: str | pathlib.Path, format: str, out: str | pathlib.Path, *, step: int | None = None,
           tokenizer: str | pathlib.Path | None = None) -> "Converted":
    """Writes a model in the format of another library, and compares both.

    Args:
      workdir: workdir of a training run, or anything that `import_` accepts.
      format: "huggingface", "reference", "tensorflow", "onnx" or "stablehlo".
      out: directory to create.
      step: of the checkpoint in a workdir; None takes the newest valid one.
      tokenizer: file of the tokenizer, if the model comes without one.

    Raises:
      UserError: a file or an argument is wrong, or a package is missing.
      RunFailed: the outputs differ; nothing is left of the export then.
    """
    from spanbert_jax.commands.conversion import convert_encoder, convert_encoder_decoder
    from spanbert_jax.common.directories import require_absent_or_empty
    from spanbert_jax.inference.model_folder import find_task
    from spanbert_jax.interop.pretrained import open_pretrained
    from spanbert_jax.interop.sources.location import encoder_decoder_at
    require_absent_or_empty(out)
    if path := encoder_decoder_at(workdir):
        if format != "huggingface":
            raise UserError(f"--format {format}: {path} is an encoder-decoder model; allowed: huggingface")
        if step is not None:
            raise UserError(f"--step {step}: {path} is an encoder-decoder model, which has no checkpoints; omit it")
        return convert_encoder_decoder(path, out, None, tokenizer)
    pretrained = open_pretrained(workdir, step=step)
    facts = pretrained.facts
    if facts:
        facts |= {"evaluation": _evaluation(pretrained.path, facts["step"])}
    return convert_encoder(pretrained, out, format, tokenizer, facts,
                           stored=find_task(pretrained.path))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this command."""
    parser.add_argument("--workdir", required=True, metavar="DIR",
                        help="workdir of a training run, or anything that `import` accepts")
    parser.add_argument("--format", required=True, choices=FORMATS, help="see above")
    parser.add_argument("--out", required=True, metavar="DIR", help="directory to create")
    add_step(parser)
    add_tokenizer(parser)


def run(args: argparse.Namespace) -> int:
    """Exports, and prints which files were written."""
    export(args.workdir, args.format, args.out, step=args.step, tokenizer=args.tokenizer).print()
    return DONE


def _evaluation(workdir: pathlib.Path, step: int) -> dict | None:
    """The metrics of a run's last evaluation up to a step."""
    from spanbert_jax.training.trackers import METRICS_FILE, read_metrics
    if not (workdir / METRICS_FILE).is_file():
        return None
    lines = [line for line in read_metrics(workdir) if line["kind"] == "evaluation" and line["step"] <= step]
    return lines[-1] if lines else None
