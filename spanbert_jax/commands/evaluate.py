"""Evaluate a model: a pretrained one on the validation rows of its corpus, with the same mask each time; a fine-tuned
one on labelled files. Pretraining runs of different masking schemes are compared by setting the same scheme; more masks
of each row make the figures more exact. Scores of tasks are in percent, from 0 to 100, also in JSON.

  spanbert-jax evaluate --workdir runs/quickstart
  spanbert-jax evaluate --workdir runs/quickstart --step 1000 --json
  spanbert-jax evaluate --workdir runs/whole_word --set masking.scheme=geometric --set evaluation.masks=4
  spanbert-jax evaluate --workdir runs/squad --input dev-v1.1.json --out predictions/squad
"""
import argparse
import json
import os
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from spanbert_jax.commands.arguments import add_process_arguments, add_step, add_task_settings, join_processes
from spanbert_jax.common.console import make_console
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_metric
from spanbert_jax.common.issues import log_issues
from spanbert_jax.common.json_files import read_json
from spanbert_jax.common.paths import Paths, join_paths, stored_pipes, user_path


def evaluate(workdir: str | os.PathLike, step: int | None = None, *, inputs: Paths | None = None,
             out: str | os.PathLike | None = None, settings: Mapping[str, Any] | None = None,
             batch_size: int | None = None) -> dict[str, Any]:
    """Evaluates a model: a pretrained one on the held-out rows of its corpus, a fine-tuned one on labelled files.

    Args:
      workdir: of the training run; of a fine-tuned model also its directory.
      step: of the checkpoint of a pretrained model; None takes the newest valid one.
      inputs: for a fine-tuned model: labelled files, folders or globs, separated by commas or in a list. Without
        them, the scores are those that its run has stored.
      out: directory to create with the predictions for `inputs` in the official formats.
      settings: new values of overridable settings of the task, for `inputs`; of a pretrained model, of masking fields
        such as {"masking.scheme": "geometric"}, and "evaluation.masks".
      batch_size: rows per device and batch; it changes no result. None for 32, or for that of the pretraining run.

    Returns:
      Of a pretrained model what `pretraining.run.evaluate` returns. Of a fine-tuned one the metrics of its task, scores
      in percent, and those of each class as in `inference.files.class_metrics`; without `inputs` those of each part,
      and "step".

    Raises:
      UserError: one line about the model, file or argument that is wrong.
    """
    fine_tuned = _is_fine_tuned(workdir, inputs)
    of_files = {"out": out, **({"settings": settings or None, "batch_size": batch_size} if fine_tuned else {})}
    for name, value in of_files.items():
        if inputs is None and value is not None:
            raise UserError(f"{name}={value!r}: applies to the predictions for labelled files; give these too")
    if not fine_tuned:
        from spanbert_jax.pretraining import run
        return run.evaluate(workdir, step, settings, batch_size)
    if step is not None:
        raise UserError(f"step={step}: a fine-tuned model is always that of its best step; omit it")
    if inputs is None:
        return _stored_results(workdir)
    return _score(workdir, inputs, out, settings, 32 if batch_size is None else batch_size)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this command."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="workdir of the training run")
    add_step(parser)
    parser.add_argument("--input", metavar="FILES",
                        help="for a fine-tuned model: labelled files, folders or globs, separated by commas; - for "
                        "standard input")
    parser.add_argument("--out", metavar="DIR", help="directory to create with its predictions in the official formats")
    add_task_settings(parser)
    parser.add_argument("--batch-size", type=int, metavar="ROWS", help="rows per device and batch; does not change the "
                        "metrics (default: 32, or that of the pretraining run)")
    parser.add_argument("--json", action="store_true", help="print the metrics as one line of JSON")
    add_process_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluates and prints the metrics."""
    fine_tuned = _is_fine_tuned(args.workdir, args.input)
    if not fine_tuned:
        join_processes(args)
    metrics = evaluate(args.workdir, args.step, inputs=args.input, out=args.out, settings=dict(args.set),
                       batch_size=args.batch_size)
    if args.json and (fine_tuned or _is_process_zero()):
        print(json.dumps(metrics))
    elif args.input:
        _print_scores(metrics)
    elif fine_tuned:
        for part in ("dev", "test"):
            print(f"{part}, step {metrics['step']:,}:" + " no examples" * (part not in metrics))
            _print_scores(metrics.get(part, {}))
    elif _is_process_zero():
        from spanbert_jax.pretraining import evaluation
        rows = evaluation.describe_masked_rows(metrics)
        print(f"step {metrics['step']:,}: {rows}: {evaluation.format_metrics(metrics)}")
        for table in filter(None, (evaluation.accuracy_table(metrics), evaluation.position_table(metrics))):
            make_console().print(table)
    return 0


def _print_scores(metrics: Mapping[str, Any]) -> None:
    """Prints the scores of a task, and tables of its classes."""
    for name, value in metrics.items():
        if name != "classes":
            print(f"{name:24} {format_metric(name, value)}")
    if classes := metrics.get("classes"):
        from spanbert_jax.tasks.metrics.classes import class_table, confusion_table
        make_console().print(class_table(classes["unit"], classes["scores"]))
        if "confusion" in classes:
            make_console().print(confusion_table(classes["unit"], classes["confusion"]))


def _is_fine_tuned(workdir: str | os.PathLike, inputs: Paths | None) -> bool:
    from spanbert_jax.training.config import started_values
    return inputs is not None or (user_path(workdir) / "task.json").is_file() or "task" in started_values(workdir)


def _is_process_zero() -> bool:
    from spanbert_jax.cluster.agreement import is_process_zero
    return is_process_zero()


class _ClassScores(TypedDict):
    unit: str
    scores: dict[str, dict[str, float]]
    confusion: NotRequired[dict[str, dict[str, int]]]


class _Results(TypedDict):
    """What a finished fine-tuning run writes."""
    step: int
    dev: NotRequired[dict[str, float | str | _ClassScores]]
    test: NotRequired[dict[str, float | str | _ClassScores]]


def _stored_results(workdir: str | os.PathLike) -> dict[str, Any]:
    """The results that a finished fine-tuning run has stored."""
    folder = user_path(workdir)
    try:
        return {**read_json(folder / "results.json", _Results, "start the command of the run again, which writes it")}
    except FileNotFoundError:
        if any(folder.glob("*.safetensors")):
            run = f" {folder.parent}" * (folder.parent / "results.json").is_file()
            raise UserError(f"{workdir}: holds a model, and not the results of its run; give the workdir of the run"
                            f"{run}, or labelled files too, with --input FILES") from None
        raise UserError(f"{workdir}: this fine-tuning run has not finished; start its command again, or evaluate a "
                        "model on labelled files: spanbert-jax evaluate --workdir MODEL --input FILES") from None


def _score(workdir: str | os.PathLike, inputs: Paths, out: str | os.PathLike | None,
           settings: Mapping[str, Any] | None, batch_size: int) -> dict[str, Any]:
    """Scores a fine-tuned model on labelled files, and logs what was repaired or left out."""
    from spanbert_jax.inference.files import score_files
    from spanbert_jax.training.experiment import use_compilation_cache
    use_compilation_cache()
    with stored_pipes(join_paths(inputs)) as stored:
        metrics, issues = score_files(workdir, stored, out, batch_size=batch_size, settings=settings)
    log_issues(issues)
    return metrics
