"""Pretrain or fine-tune as a config describes. After a stop, the same command continues the run.

  spanbert-jax train --config configs/quickstart.py --workdir runs/quickstart
  spanbert-jax train --workdir runs/quickstart
  spanbert-jax train --config configs/base.py:scheme=whole_word,sbo=false --workdir runs/whole_word \\
      --config.data.path=corpora/wiki --config.optimizer.learning_rate=2e-4

In a run of several processes (Slurm, Cloud TPU, Kubernetes, or the flags below), all start with the same command.
--config.FIELD=VALUE overrides any field of the config; the argument of a config file follows its name. Without
--config, the run in the workdir continues with the config that it has stored.
"""
import argparse
import contextlib
import os
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spanbert_jax.cluster.exit_codes import DONE, STOPPED
from spanbert_jax.commands.arguments import add_process_arguments, join_processes
from spanbert_jax.commands.config_files import Config, as_run_config, load_config
from spanbert_jax.common.curve import draw_curve
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_metric, format_plural
from spanbert_jax.common.json_files import read_json
from spanbert_jax.common.paths import user_path

if TYPE_CHECKING:
    from spanbert_jax.finetuning.config import FinetuningConfig
    from spanbert_jax.pretraining.config import PretrainingConfig
    from spanbert_jax.training.config import RunConfig
    from spanbert_jax.training.run import RunResult


def train(config: Config, workdir: str | os.PathLike, *, force: bool = False,
          time_limit: float = 0.0, verbose: bool = False) -> "RunResult":
    """Pretrains or fine-tunes as a config describes, or continues the run in `workdir`.

    Args:
      config: as `load_config`, `default_config` or `default_task_config` returns it.
      workdir: created if needed.
      force: resume although the config changed what the run computes.
      time_limit: seconds after which to save and stop, as on SIGTERM; 0 for none.
      verbose: list the parameters of a run that is resumed, too.

    Raises:
      as `pretraining.run.train`.
    """
    from spanbert_jax.finetuning.config import FinetuningConfig
    typed = as_run_config(config)
    if isinstance(typed, FinetuningConfig):
        from spanbert_jax.finetuning.run import finetune as run
    else:
        from spanbert_jax.pretraining.run import train as run
    return run(typed, workdir, force=force, time_limit=time_limit, verbose=verbose)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this command."""
    parser.add_argument("--config", metavar="FILE[:ARG]", help="config file, such as configs/base.py, or the name of "
                        "one that `spanbert-jax configs` lists (default: the config stored in the workdir)")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="directory of checkpoints, metrics and the "
                        "corpus, if it is prepared from config.data.sources")
    parser.add_argument("--time-limit", type=duration, default=0.0, metavar="TIME",
                        help="save and stop after this time, such as 3h50m or 90m")
    parser.add_argument("--force", action="store_true", help="resume although the config changed what the run computes")
    parser.add_argument("--verbose", action="store_true", help="list the parameters although the run has begun")
    add_process_arguments(parser)


def duration(text: str) -> float:
    """Seconds in a time such as 3h50m, 90m or 45s."""
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    if not hours + minutes + seconds:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write it as 3h50m, 90m or 45s")
    return float(3600 * hours + 60 * minutes + seconds)


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parses the flags; `overrides` gets those of config fields."""
    args, overrides = parser.parse_known_args(argv)
    args.overrides = overrides
    unknown = [word for word in args.overrides if not word.startswith("--config.")]
    if unknown:
        parser.error(f"unknown argument {unknown[0]}; fields of the config are set as --config.FIELD=VALUE")
    return args


def run(args: argparse.Namespace) -> int:
    """Trains, and prints the result."""
    began = time.monotonic()  # the time limit includes waiting for the other processes
    config = as_run_config(load_config(args.config or _stored_config(args.workdir), args.overrides))
    join_processes(args)
    from spanbert_jax.cluster.agreement import is_process_zero
    left = max(args.time_limit - (time.monotonic() - began), 1e-3) if args.time_limit else 0.0
    result = train(config, args.workdir, force=args.force, time_limit=left, verbose=args.verbose)
    if is_process_zero():
        print(format_result(config, result), flush=True)
    return DONE if result.finished else STOPPED


def _stored_config(workdir: str) -> str:
    """The stored config of the run in a workdir. Raises UserError if there is none."""
    from spanbert_jax.training.config import CONFIG_FILE
    file = user_path(workdir) / CONFIG_FILE
    if not file.is_file():
        raise UserError(f"--workdir={workdir}: holds no run to continue; give --config too, to start one")
    return str(file)


def format_result(config: "RunConfig", result: "RunResult") -> str:
    """Text about the result of a run: the model, its quality, and commands to run next."""
    from spanbert_jax.finetuning.config import FinetuningConfig
    from spanbert_jax.pretraining.config import as_pretraining_config
    from spanbert_jax.training.config import SHAPE
    if not result.finished:
        if not result.step:
            return "Stopped before the first step; nothing is saved yet. Run the same command again to start."
        return (f"Stopped after step {result.step:,} and saved in {result.workdir}. Run the same command again to "
                "continue.")
    if isinstance(config, FinetuningConfig):
        return _format_task_result(config, result)
    size = "" if config.init_from or any(getattr(config.model, name) for name in SHAPE) else f"{config.model.size} "
    start = f", starting from {config.init_from}" if config.init_from else ""
    lines = [f"Made: a {size}SpanBERT of {result.parameters:,} parameters, pretrained for "
             f"{format_plural(result.step, 'step')}{start}, in {result.workdir}/checkpoints/{result.step}."]
    figures = result.evaluation
    if figures:
        gain = figures["unigram_loss"] - figures["masked_loss"]
        lines.append(
            f"How good: of {figures['masked_tokens']:,} tokens masked in documents it has not seen it guesses "
            f"{figures['masked_accuracy']:.1%} right, at a loss of {figures['masked_loss']:.3f} nats; guessing by how "
            f"frequent each token is would reach {figures['unigram_loss']:.3f}, so it is {abs(gain):.3f} nats "
            f"{'better' if gain > 0 else 'worse'}.")
    lines += _what_it_learned(as_pretraining_config(config), result)
    lines += [
        "Next:",
        f"  spanbert-jax evaluate --workdir {result.workdir}",
        "      accuracy by span length and by position in the span",
        f"  spanbert-jax export --workdir {result.workdir} --format huggingface --out models/{result.workdir.name}",
        "      the model for transformers; other formats: --help",
        f"  tensorboard --logdir {result.workdir}",
        "      the curves of this run (pip install tensorboard)",
        "  spanbert-jax prepare --source 'texts/*.txt' --out corpora/mine --vocab-size 30000",
        "  spanbert-jax train --config own_text:corpus=corpora/mine --workdir runs/mine",
        "      a model of your own text, sized by the corpus and this machine"]
    return "\n".join(lines)


def _what_it_learned(config: "PretrainingConfig", result: "RunResult") -> list[str]:
    """The loss curve of a pretraining run, and the example that `config.evaluation.example` asks for."""
    import jax

    from spanbert_jax.pretraining.example import fill_example
    from spanbert_jax.training.trackers import read_metrics
    losses = [(line["step"], line["loss"]) for line in read_metrics(result.workdir) if line["kind"] == "train"]
    lines = ["Loss in training:", *draw_curve(losses, "step")] if len(losses) > 1 else []
    if config.evaluation.example and jax.process_count() == 1:
        with contextlib.suppress(UserError):  # the run itself has succeeded
            lines += fill_example(config, result.workdir)
    return lines


def _format_task_result(config: "FinetuningConfig", result: "RunResult") -> str:
    from spanbert_jax.finetuning.run import MODEL_FOLDER, RESULTS_FILE
    results = read_json(result.workdir / RESULTS_FILE, dict[str, Any])
    lines = [f"Made: a model of {result.parameters:,} parameters for {config.task.name}, starting from "
             f"{config.init_from}, trained for {format_plural(result.step, 'step')}; the model of step "
             f"{results['step']:,} is in {result.workdir / MODEL_FOLDER}."]
    for part in ("dev", "test"):
        if part in results:
            figures = ", ".join(f"{name} {format_metric(name, value)}" for name, value in results[part].items()
                                if name != "classes")
            lines.append(f"How good on {part}: {figures}.")
    lines += ["Next:",
              f"  spanbert-jax predict --model {result.workdir / MODEL_FOLDER} --input FILE --output predictions.jsonl",
              f"  spanbert-jax evaluate --workdir {result.workdir} --input FILE"]
    return "\n".join(lines)
