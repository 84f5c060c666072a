"""Predictions and scores of files."""
import contextlib
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from spanbert_jax.common.directories import new_directory, require_absent_or_empty
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import can_be_made, describe_failure, publish, temporary_file, to_utf8, write_text
from spanbert_jax.common.identity import content_digest
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.manifest import folder_digest
from spanbert_jax.common.paths import STANDARD_STREAM, user_path
from spanbert_jax.inference.executors import Predictor, example_groups
from spanbert_jax.inference.model_folder import load_model, model_folder
from spanbert_jax.inference.outputs import InputFields, is_table, write_table
from spanbert_jax.inference.partial import Partial, manifest_of, open_partial, partial_of
from spanbert_jax.inference.program import program_identity
from spanbert_jax.tasks.files.reading import Example, file_of, resolve_files
from spanbert_jax.tasks.metrics.classes import class_scores, confusion
from spanbert_jax.tasks.protocol import Prediction, Task, evaluate_predictions, read_all


def predict_files(model: str | os.PathLike, inputs: str, output: str | os.PathLike, *, batch_size: int = 32,
                  dtype: str = "float32", settings: Mapping[str, Any] | None = None,
                  official: str | os.PathLike | None = None, html: str | os.PathLike | None = None, keep: str = "",
                  on_examples: Callable[[int], None] = lambda count: None) -> DataIssues:
    """Writes the predictions for the examples of files as JSON lines, in order and in constant memory.

    If the name of the output ends in .csv or .tsv, they become a table when all are there. With several input files,
    each prediction has the "file" of its example, since ids may be the same in several files.

    Until it is complete, the output is in OUTPUT.partial. The same call continues it; the result is the same as without
    an interruption. If model, input, settings, program or compiler have changed, it is set aside as OUTPUT.partial-1.

    Args:
      model: the directory that fine-tuning wrote, or the workdir that contains it.
      inputs: files, folders or globs, separated by commas.
      output: must not exist.
      batch_size: rows sent to each device at once; it changes no result.
      dtype, settings: as for `load_model`.
      official: a new directory for the predictions in the task's official formats; needs all of them in memory.
      html: a new file for a page that shows the predictions with their texts.
      keep: fields of the input's records, separated by commas, that each prediction gets as "input"; "all" for all.
      on_examples: called with the number of examples done after each group.

    Returns:
      What this call repaired or truncated.

    Raises:
      UserError: naming file, line and id of an error; predictions made before stay in OUTPUT.partial.
    """
    target, page, folder = _absent_files(output, html, official)
    files, path = resolve_files(inputs), partial_of(target)
    fine_tuned, issues = load_model(model, dtype, settings), DataIssues()
    predictor, task = Predictor(fine_tuned, batch_size), fine_tuned.task
    if page and not task.has_html:
        raise UserError(f"--html {html}: {fine_tuned.name} has no page to show its predictions; leave it out")
    if folder and not task.has_official_format:
        raise UserError(f"--official {official}: {fine_tuned.name} has no official format; leave it out")
    identity = {"model": folder_digest(model_folder(model)), **_input_identity(files, dtype, settings, keep),
                **program_identity(type(task))}
    with _disk_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with _disk_errors(path):
            partial = stack.enter_context(open_partial(target, identity, files))
        examples = (example for file in files for example in task.read(file, issues, with_labels=False))
        done, groups = _after(partial.lines, example_groups(examples))
        with _disk_errors(path):
            partial.keep(done)
        if folder and not done:
            require_absent_or_empty(folder)
        on_examples(done)
        fields = InputFields(files, getattr(task.settings, "columns", ()), keep) if keep else None
        for group in groups:
            predictions = predictor(group, issues)
            if len(files) > 1:
                predictions = _with_files(group, predictions)
            if fields:
                for example, prediction in zip(group, predictions, strict=True):
                    prediction["input"] = fields(example)
            with _disk_errors(path):
                partial.append(_json_lines(predictions))
            done += len(group)
            on_examples(done)
        partial.verify()
        if folder:
            _write_official(task, inputs, path, folder)
        if page:
            _write_page(task, files, path, page)
        try:
            with _disk_errors(path):
                _complete(partial, target)
        except BaseException:
            if page:
                page.unlink(missing_ok=True)  # the same call makes it again
            raise
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
                write_text(folder / name, text)
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


def _absent_files(out: str | os.PathLike, html: str | os.PathLike | None, official: str | os.PathLike | None,
                  ) -> tuple[pathlib.Path, pathlib.Path | None, pathlib.Path | None]:
    """The paths of the output, of the page and of the directory of official files, if any.

    Raises UserError if output or page exist, if one is in another's place, or if page or directory cannot be created,
    or are standard output.
    """
    output = user_path(out)
    page, folder = (user_path(path) if path else None for path in (html, official))
    for path in (output, page):
        if path and os.path.lexists(path):
            raise UserError(f"{path}: exists already and is not overwritten; give another file, or remove it")
    partial = partial_of(output)
    taken = {os.path.realpath(path): role for path, role in (
        (output, "the output too"), (partial, "the output while it is incomplete"),
        (manifest_of(partial), "the manifest of the incomplete output"))}
    for flag, path in (("--html", page), ("--official", folder)):
        if path:
            place = os.path.realpath(path)
            if str(path) == STANDARD_STREAM:
                raise UserError(f"{flag} {path}: only --output may be standard output; give a path")
            if place in taken:
                raise UserError(f"{flag} {path}: is {taken[place]}; give another path")
            taken[place] = "the page too"
            if not can_be_made(path.parent):
                raise UserError(f"{flag} {path}: cannot be written there; give another path")
    if folder and os.path.realpath(output).startswith(os.path.join(os.path.realpath(folder), "")):
        raise UserError(f"--official {folder}: contains the output, and must be a new directory; give another one")
    return output, page, folder


def _write_official(task: Task, inputs: str, partial: pathlib.Path, official: pathlib.Path) -> None:
    """Writes the official files into a new directory, unless an earlier call has just written them."""
    examples = read_all(task, inputs, DataIssues(), with_labels=False)
    with open(partial, encoding="utf-8") as lines:
        texts = task.files(examples, [json.loads(line) for line in lines])
    if all((official / name).is_file() and (official / name).read_bytes() == to_utf8(text)
           for name, text in texts.items()):
        return
    with new_directory(official) as folder:
        for name, text in texts.items():
            write_text(folder / name, text)


def _write_page(task: Task, files: Sequence[str], partial: pathlib.Path, page: pathlib.Path) -> None:
    """Writes the page of all predictions in little memory. The examples are read again."""
    examples = (example for file in files for example in task.read(file, DataIssues(), with_labels=False))
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, encoding="utf-8") as lines, temporary_file(page) as (temporary, written):
            for part in task.html(examples, map(json.loads, lines)):
                written.write(to_utf8(part))
            written.flush()
            os.fsync(written.fileno())
            publish(temporary, page)
    except FileExistsError:
        raise UserError(f"{page}: another program has made it meanwhile, and it is not overwritten; move it away, and "
                        f"run the same command again: the predictions are in {partial}") from None
    except OSError as error:
        raise UserError(f"{page}: cannot be written ({describe_failure(error, page)}); fix that, and run the same "
                        "command again to continue") from None


def _complete(partial: Partial, output: pathlib.Path) -> None:
    """Turns the partial output, whose lines are all there, into the output."""
    try:
        if is_table(output):
            write_table(partial.path, output)
            partial.remove()
        else:
            partial.complete(output)
    except FileExistsError:
        raise UserError(f"{output}: another program has made it meanwhile, and it is not overwritten; move it away, "
                        f"and run the same command again: the predictions are in {partial.path}") from None


def _input_identity(files: Sequence[str], dtype: str, settings: Mapping[str, Any] | None, keep: str) -> dict[str, str]:
    """What predictions depend on besides model and program: hashes of the inputs and of the settings."""
    names = files if len(files) > 1 else ()  # each prediction then has the name of its file
    described = {"input": [[content_digest(file) for file in files], names],
                 "settings": [dtype, dict(settings or {}), keep]}
    return {name: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
            for name, value in described.items()}


def _after(lines: int, groups: Iterator[list[Example]]) -> tuple[int, Iterator[list[Example]]]:
    """The number of examples of the groups that are complete in so many lines of output; and the other groups."""
    done = 0
    for group in groups:
        if done + len(group) > lines:
            return done, itertools.chain([group], groups)
        done += len(group)
    return done, groups
