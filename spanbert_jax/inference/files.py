"""Predictions for files of any size, in constant memory. Stopped or killed, the same call goes on."""
from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from spanbert_jax.common.directories import new_directory, require_absent_or_empty
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.locks import LockHeld, exclusive_lock
from spanbert_jax.inference.generator import make_predictor
from spanbert_jax.inference.model_folder import MODEL_FOLDER, TASK_FILE, load_model
from spanbert_jax.inference.predictor import group_size
from spanbert_jax.tasks.files.reading import files_of, stamps
from spanbert_jax.tasks.protocol import Example, Task, read_all

logger = logging.getLogger("spanbert_jax")


def predict_files(model: str | os.PathLike, inputs: str, output: str | os.PathLike, *, batch_size: int = 32,
                  dtype: str = "float32", settings: Mapping[str, Any] | None = None,
                  official: str | os.PathLike | None = None,
                  on_examples: Callable[[int], None] = lambda count: None) -> DataIssues:
    """Writes the predictions for the examples of some files as JSON lines, in their order.

    Until it is whole, what is written lies in OUTPUT.partial. The same call goes on from there; the result is the same
    as without an interruption.

    Args:
      model: the directory that fine-tuning has written, or the workdir that holds it.
      inputs: files, folders or globs, separated by commas.
      output: must not exist.
      batch_size: rows sent to each device at once; it changes no result.
      dtype, settings: as `load_model` has them.
      official: a directory to be made for the predictions in the task's official formats, for which all are held in
        memory.
      on_examples: is told how many examples are done, now and then.

    Returns:
      What in the files was mended or cut, counted by this call.

    Raises:
      UserError: naming file, line and id; what was predicted before stays in OUTPUT.partial.
    """
    output = pathlib.Path(output).expanduser()
    if output.exists():
        raise UserError(f"{output}: exists already and is not overwritten; give another file, or remove it")
    files, partial = files_of(inputs), output.with_name(output.name + ".partial")
    fine_tuned, faults = load_model(model, dtype, settings), DataIssues()
    predictor, task = make_predictor(fine_tuned, batch_size), fine_tuned.task
    with _telling(partial):
        output.parent.mkdir(parents=True, exist_ok=True)
    with _alone(partial):
        with _telling(partial):
            done = _begin(partial, _identity(model, inputs, dtype, settings))
        if official is not None and not done:
            require_absent_or_empty(official)
            if not task.files([], []):
                raise UserError(f"--official {official}: {fine_tuned.name} has no official format; leave it out")
        on_examples(done)
        examples = (example for file in files for example in task.read(file, faults, labelled=False))
        for group in _groups(itertools.islice(examples, done, None)):
            lines = [json.dumps(prediction, ensure_ascii=False) for prediction in predictor(group, faults)]
            with _telling(partial), open(partial, "ab") as out:
                out.write("".join(f"{line}\n" for line in lines).encode())
            done += len(group)
            on_examples(done)
        if official is not None and not (pathlib.Path(official).is_dir() and any(pathlib.Path(official).iterdir())):
            _write_official(task, inputs, partial, pathlib.Path(official))
        with _telling(partial):
            _finish(partial, output)
    return faults


@contextlib.contextmanager
def _telling(partial: pathlib.Path) -> Iterator[None]:
    """Turns what the disk says into a line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{partial}: cannot be written ({error.strerror}); mend that, and run the same again to go "
                        "on") from None


@contextlib.contextmanager
def _alone(partial: pathlib.Path) -> Iterator[None]:
    """Keeps other calls on this machine from writing the same output."""
    with contextlib.ExitStack() as stack:
        try:
            with _telling(partial):
                stack.enter_context(exclusive_lock(_note(partial)))
        except LockHeld:
            raise UserError(f"{partial}: another prediction is being written to it; wait for that, or give another "
                            "output") from None
        yield


def _finish(partial: pathlib.Path, output: pathlib.Path) -> None:
    with open(partial, "rb") as out:
        os.fsync(out.fileno())
    partial.rename(output)
    _note(partial).unlink(missing_ok=True)


def _write_official(task: Task, inputs: str, partial: pathlib.Path, official: pathlib.Path) -> None:
    examples = read_all(task, inputs, DataIssues(), labelled=False)
    with open(partial, encoding="utf-8") as lines:
        predictions = [json.loads(line) for line in lines]
    with new_directory(official) as folder:
        for name, text in task.files(examples, predictions).items():
            (folder / name).write_text(text, encoding="utf-8")


def _groups(examples: Iterator[Example]) -> Iterator[list[Example]]:
    size = group_size()
    while group := list(itertools.islice(examples, size)):
        yield group


def _identity(model: str | os.PathLike, inputs: str, dtype: str, settings: Mapping[str, Any] | None) -> str:
    """What has to be the same for a prediction to be gone on with."""
    folder = pathlib.Path(model).expanduser()
    folder = folder / MODEL_FOLDER if (folder / MODEL_FOLDER / TASK_FILE).is_file() else folder
    weights = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(folder.iterdir())]
    return hashlib.sha256(json.dumps([stamps(inputs), weights, dtype, dict(settings or {})]).encode()).hexdigest()


def _note(partial: pathlib.Path) -> pathlib.Path:
    """The file beside a partial output that says what it is of."""
    return partial.with_name(partial.name + ".of")


def _begin(partial: pathlib.Path, identity: str) -> int:
    """How many examples are done already; the partial output then ends with the last whole group."""
    note = _note(partial)
    if not (partial.exists() and note.read_text(encoding="utf-8") == identity):
        if partial.exists():
            logger.warning("%s is of another model or input, or of none: begun anew", partial)
        partial.write_bytes(b"")
        note.write_text(identity, encoding="utf-8")
        return 0
    done, end, position, size = 0, 0, 0, group_size()
    with open(partial, "r+b") as lines:
        for number, line in enumerate(lines, 1):
            position += len(line)
            if number % size == 0 and line.endswith(b"\n"):
                done, end = number, position
    os.truncate(partial, end)
    return done
