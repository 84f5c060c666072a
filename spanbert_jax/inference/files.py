"""Predictions and scores of files."""
import contextlib
import hashlib
import itertools
import json
import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from spanbert_jax.common.directories import new_directory, require_absent_or_empty
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.locks import LockHeld, exclusive_lock
from spanbert_jax.common.paths import user_path
from spanbert_jax.inference.executors import Predictor, example_groups
from spanbert_jax.inference.model_folder import MODEL_FOLDER, TASK_FILE, load_model
from spanbert_jax.inference.outputs import InputFields, is_table, write_table
from spanbert_jax.tasks.files.reading import Example, file_fingerprints, file_of, resolve_files
from spanbert_jax.tasks.metrics.classes import class_scores, confusion
from spanbert_jax.tasks.protocol import Prediction, Task, evaluate_predictions, read_all

logger = logging.getLogger("spanbert_jax")


def predict_files(model: str | os.PathLike, inputs: str, output: str | os.PathLike, *, batch_size: int = 32,
                  dtype: str = "float32", settings: Mapping[str, Any] | None = None,
                  official: str | os.PathLike | None = None, keep: str = "",
                  on_examples: Callable[[int], None] = lambda count: None) -> DataIssues:
    """Writes the predictions for the examples of files as JSON lines, in order and in constant memory.

    If the name of the output ends in .csv or .tsv, they become a table when all are there. With several input files,
    each prediction has the "file" of its example, since ids may be the same in several files.

    Until it is complete, the output is in OUTPUT.partial. The same call continues it; the result is the same as without
    an interruption.

    Args:
      model: the directory that fine-tuning wrote, or the workdir that contains it.
      inputs: files, folders or globs, separated by commas.
      output: must not exist.
      batch_size: rows sent to each device at once; it changes no result.
      dtype, settings: as for `load_model`.
      official: a new directory for the predictions in the task's official formats; needs all of them in memory.
      keep: fields of the input's records, separated by commas, that each prediction gets as "input"; "all" for all.
      on_examples: called with the number of examples done after each group.

    Returns:
      What this call repaired or truncated.

    Raises:
      UserError: naming file, line and id of an error; predictions made before stay in OUTPUT.partial.
    """
    output = user_path(output)
    if output.exists():
        raise UserError(f"{output}: exists already and is not overwritten; give another file, or remove it")
    files, partial = resolve_files(inputs), output.with_name(output.name + ".partial")
    fine_tuned, issues = load_model(model, dtype, settings), DataIssues()
    predictor, task = Predictor(fine_tuned, batch_size), fine_tuned.task
    with _disk_errors(partial):
        output.parent.mkdir(parents=True, exist_ok=True)
    with _locked(partial):
        with _disk_errors(partial):
            lines = _begin(partial, _fingerprint(model, inputs, dtype, settings, keep))
        examples = (example for file in files for example in task.read(file, issues, with_labels=False))
        done, groups = _after(lines, example_groups(examples))
        with _disk_errors(partial):
            _truncate(partial, done)
        if official is not None and not done:
            require_absent_or_empty(os.fspath(official))
            if not task.has_official_format:
                raise UserError(f"--official {official}: {fine_tuned.name} has no official format; leave it out")
        on_examples(done)
        fields = InputFields(files, getattr(task.settings, "columns", ()), keep) if keep else None
        for group in groups:
            predictions = predictor(group, issues)
            if len(files) > 1:
                predictions = _with_files(group, predictions)
            if fields:
                for example, prediction in zip(group, predictions, strict=True):
                    prediction["input"] = fields(example)
            with _disk_errors(partial), open(partial, "ab") as out:
                out.write(_json_lines(predictions).encode())
            done += len(group)
            on_examples(done)
        if official is not None and not (user_path(official).is_dir() and any(user_path(official).iterdir())):
            _write_official(task, inputs, partial, user_path(official))
        _complete(partial, output)
    return issues


def score_files(model: str | os.PathLike, inputs: str, out: str | os.PathLike | None = None, *,
                batch_size: int = 32, settings: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], DataIssues]:
    """Predicts and scores files with labels.

    Args:
      model, inputs, batch_size, settings: as for `predict_files`.
      out: a new directory for the predictions, as JSON lines and in the task's official formats.

    Returns:
      The task's metrics and the number of examples, and the result of `class_metrics`. And what was repaired or left
      out.

    Raises:
      UserError: naming file, line and id of an error.
    """
    if out is not None:
        require_absent_or_empty(os.fspath(out))
    fine_tuned, issues = load_model(model, settings=settings), DataIssues()
    predictor, task = Predictor(fine_tuned, batch_size), fine_tuned.task
    examples, predictions = read_all(task, inputs, issues), []
    for group in example_groups(examples):
        predictions += predictor(group, issues, with_labels=True)
    if out is not None:
        with new_directory(out) as folder:
            for name, text in prediction_files(task, examples, predictions).items():
                (folder / name).write_text(text, encoding="utf-8")
    metrics = evaluate_predictions(task, examples, predictions) | class_metrics(task, examples, predictions)
    return metrics, issues


def class_metrics(task: Task, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """For a task with classes {"classes"}: the "unit" that has a class, "scores" of each class, and "confusion",
    {answer: {prediction: count}}, unless each may have several; {} for other tasks."""
    classes = task.classes(examples, predictions)
    if classes is None:
        return {}
    found = {"unit": classes.unit, "scores": class_scores(classes.answers, classes.predicted)}
    if all(isinstance(each, str) for each in classes.answers):
        found["confusion"] = confusion(classes.answers, classes.predicted)
    return {"classes": found}


def prediction_files(task: Task, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, str]:
    """Predictions as JSON lines and in the task's official formats: file name -> text."""
    several = len(set(map(file_of, examples))) > 1
    lines = _json_lines(_with_files(examples, predictions) if several else predictions)
    return {"predictions.jsonl": lines, **task.files(examples, predictions)}


def _with_files(examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[Prediction]:
    """Predictions with the "file" of their example: ids, such as line numbers, may be the same in several files."""
    return [{"id": prediction["id"], "file": file_of(example), **prediction}
            for example, prediction in zip(examples, predictions, strict=True)]


def _json_lines(predictions: Sequence[Prediction]) -> str:
    return "".join(json.dumps(prediction, ensure_ascii=False) + "\n" for prediction in predictions)


@contextlib.contextmanager
def _disk_errors(partial: pathlib.Path) -> Iterator[None]:
    """Turns errors of the disk into one-line errors."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{partial}: cannot be written ({error.strerror}); fix that, and run the same command again "
                        "to continue") from None


@contextlib.contextmanager
def _locked(partial: pathlib.Path) -> Iterator[None]:
    """Holds a lock, so that no other call on this machine writes the same output."""
    with contextlib.ExitStack() as stack:
        try:
            with _disk_errors(partial):
                stack.enter_context(exclusive_lock(_fingerprint_file(partial)))
        except LockHeld:
            raise UserError(f"{partial}: another call is writing it; wait for that, or give another output") from None
        yield


def _write_official(task: Task, inputs: str, partial: pathlib.Path, official: pathlib.Path) -> None:
    examples = read_all(task, inputs, DataIssues(), with_labels=False)
    with open(partial, encoding="utf-8") as lines:
        predictions = [json.loads(line) for line in lines]
    with new_directory(official) as folder:
        for name, text in task.files(examples, predictions).items():
            (folder / name).write_text(text, encoding="utf-8")


def _complete(partial: pathlib.Path, output: pathlib.Path) -> None:
    """Turns the partial output, which is complete, into the output."""
    with _disk_errors(partial):
        if is_table(output):
            write_table(partial, output)
            partial.unlink()
        else:
            with open(partial, "rb") as out:
                os.fsync(out.fileno())
            partial.rename(output)
        _fingerprint_file(partial).unlink(missing_ok=True)


def _fingerprint(model: str | os.PathLike, inputs: str, dtype: str, settings: Mapping[str, Any] | None,
                 keep: str) -> str:
    """Fingerprint of model, input and settings; only a call with the same one continues a partial output."""
    folder = user_path(model)
    folder = folder / MODEL_FOLDER if (folder / MODEL_FOLDER / TASK_FILE).is_file() else folder
    weights = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(folder.iterdir())]
    text = json.dumps([file_fingerprints(inputs), weights, dtype, dict(settings or {}), keep])
    return hashlib.sha256(text.encode()).hexdigest()


def _fingerprint_file(partial: pathlib.Path) -> pathlib.Path:
    """The file next to a partial output with its fingerprint."""
    return partial.with_name(partial.name + ".of")


def _begin(partial: pathlib.Path, fingerprint: str) -> int:
    """Starts the partial output unless it is there. Returns the number of whole lines in it."""
    note = _fingerprint_file(partial)
    if not (partial.exists() and note.read_text(encoding="utf-8") == fingerprint):
        if partial.exists():
            logger.warning("%s belongs to another model or input: starting over", partial)
        partial.write_bytes(b"")
        note.write_text(fingerprint, encoding="utf-8")
        return 0
    with open(partial, "rb") as lines:
        return sum(line.endswith(b"\n") for line in lines)


def _after(lines: int, groups: Iterator[list[Example]]) -> tuple[int, Iterator[list[Example]]]:
    """The number of examples of the groups that are complete in so many lines of output; and the other groups."""
    done = 0
    for group in groups:
        if done + len(group) > lines:
            return done, itertools.chain([group], groups)
        done += len(group)
    return done, groups


def _truncate(partial: pathlib.Path, count: int) -> None:
    """Truncates the partial output to `count` lines."""
    with open(partial, "rb") as lines:
        end = sum(map(len, itertools.islice(lines, count)))
    os.truncate(partial, end)
