"""Pretrain or fine-tune what a config describes. Stopped at any point, the same command goes on.

  spanbert-jax train --config configs/quickstart.py --workdir runs/quickstart
  spanbert-jax train --config configs/base.py:scheme=whole_word,sbo=false --workdir runs/whole_word \\
      --config.data.path=corpora/wiki --config.optimizer.learning_rate=2e-4

Where it runs as many processes (Slurm, Cloud TPU, Kubernetes, or the flags below) the command is the same in each.
Every field of a config is overridden as --config.FIELD=VALUE; a config file's own variants follow its name.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spanbert_jax.cluster.exit_codes import DONE, STOPPED
from spanbert_jax.commands.arguments import add_process_arguments, join_processes
from spanbert_jax.commands.configs import as_run_config, load_config
from spanbert_jax.common.formatting import format_metric

if TYPE_CHECKING:
    from spanbert_jax.finetuning.config import FinetuningConfig
    from spanbert_jax.training.config import RunConfig
    from spanbert_jax.training.run import RunResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this verb."""
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]", help="config file, such as configs/base.py")
    parser.add_argument("--workdir", required=True, metavar="DIR",
                        help="where checkpoints, metrics and a corpus prepared on the way go")
    parser.add_argument("--time-limit", type=duration, default=0.0, metavar="TIME",
                        help="save and stop after so long, as in 3h50m or 90m")
    parser.add_argument("--force", action="store_true",
                        help="go on from a checkpoint although changes since then make it another run")
    add_process_arguments(parser)


def duration(text: str) -> float:
    """Seconds in a time such as 3h50m, 90m or 45s."""
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    if not hours + minutes + seconds:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write it as 3h50m, 90m or 45s")
    return float(3600 * hours + 60 * minutes + seconds)


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Flags, with the overrides of the config's fields in `overrides`."""
    args, overrides = parser.parse_known_args(argv)
    args.overrides = overrides
    unknown = [word for word in args.overrides if not word.startswith("--config.")]
    if unknown:
        parser.error(f"unknown argument {unknown[0]}; fields of the config are set as --config.FIELD=VALUE")
    return args


def run(args: argparse.Namespace) -> int:
    """Trains, and says what came of it."""
    began = time.monotonic()  # the time limit is the command's, which may wait long for the other processes
    config = as_run_config(load_config(args.config, args.overrides))
    join_processes(args)
    from spanbert_jax.cluster.agreement import is_process_zero
    from spanbert_jax.finetuning.config import FinetuningConfig
    from spanbert_jax.finetuning.run import finetune
    from spanbert_jax.pretraining.run import train
    left = max(args.time_limit - (time.monotonic() - began), 1e-3) if args.time_limit else 0.0
    start = finetune if isinstance(config, FinetuningConfig) else train
    result = start(config, args.workdir, force=args.force, time_limit=left)
    if is_process_zero():
        with contextlib.suppress(OSError):  # of a full disk: what is said is lost, what was done is not
            print(closing_words(config, result), flush=True)
    return DONE if result.finished else STOPPED


def closing_words(config: RunConfig, result: RunResult) -> str:
    """What was made, how good it is and what to run next, in plain words."""
    from spanbert_jax.finetuning.config import FinetuningConfig
    from spanbert_jax.training.config import SHAPE
    if not result.finished:
        if not result.step:
            return "Stopped before the first step; nothing is saved yet. Run the same command again to begin."
        return (f"Stopped after step {result.step:,} and saved in {result.workdir}. Run the same command again to go "
                "on from there.")
    if isinstance(config, FinetuningConfig):
        return _closing_words_of_task(config, result)
    size = "" if config.init_from or any(getattr(config.model, name) for name in SHAPE) else f"{config.model.size} "
    begun = f", begun from {config.init_from}" if config.init_from else ""
    lines = [f"Made: a {size}SpanBERT of {result.parameters:,} parameters, pretrained for "
             f"{result.step:,} steps{begun}, in {result.workdir}/checkpoints/{result.step}."]
    figures = result.evaluation
    if figures:
        gain = figures["unigram_loss"] - figures["masked_loss"]
        lines.append(
            f"How good: of {figures['masked_tokens']:,} tokens masked in documents it has not seen it guesses "
            f"{figures['masked_accuracy']:.1%} right, at a loss of {figures['masked_loss']:.3f} nats; guessing by how "
            f"frequent each token is would reach {figures['unigram_loss']:.3f}, so it is {abs(gain):.3f} nats "
            f"{'better' if gain > 0 else 'worse'}.")
    lines += [
        "Next:",
        f"  spanbert-jax evaluate --workdir {result.workdir}",
        "      accuracy by the length of the span and by the place in it",
        f"  spanbert-jax export --workdir {result.workdir} --format huggingface --out models/{result.workdir.name}",
        "      the network for transformers; other formats: --help",
        f"  tensorboard --logdir {result.workdir}",
        "      the curves of this run (pip install tensorboard)",
        "  spanbert-jax prepare --source 'texts/*.txt' --out corpora/mine --vocab-size 30000",
        "  spanbert-jax train --config configs/base.py --config.data.path=corpora/mine --workdir runs/base",
        "      the published model on your own text",
    ]
    return "\n".join(lines)


def _closing_words_of_task(config: FinetuningConfig, result: RunResult) -> str:
    from spanbert_jax.finetuning.run import MODEL_FOLDER, RESULTS_FILE
    results = json.loads((result.workdir / RESULTS_FILE).read_text(encoding="utf-8"))
    lines = [f"Made: a network of {result.parameters:,} parameters for {config.task.name}, begun from "
             f"{config.init_from} and trained for {result.step:,} steps; that of step {results['step']:,} is in "
             f"{result.workdir / MODEL_FOLDER}."]
    for part in ("dev", "test"):
        if part in results:
            figures = ", ".join(f"{name} {format_metric(value)}" for name, value in results[part].items())
            lines.append(f"How good on {part}: {figures}.")
    lines += ["Next:",
              f"  spanbert-jax predict --model {result.workdir / MODEL_FOLDER} --input FILE --output predictions.jsonl",
              f"  spanbert-jax evaluate --workdir {result.workdir} --input FILE"]
    return "\n".join(lines)
