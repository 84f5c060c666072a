"""A fine-tuned network stored with its task: a directory of transformers, and task.json in it."""
from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from spanbert_jax.common.directories import replace_directory
from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.encoder_decoder import load_encoder_decoder, save_encoder_decoder
from spanbert_jax.interop.exporting import save_pretrained
from spanbert_jax.interop.pretrained import load_params, load_tokenizer, open_pretrained
from spanbert_jax.interop.sources.location import is_workdir
from spanbert_jax.model import EncoderDecoder, EncoderModel
from spanbert_jax.tasks import make_task
from spanbert_jax.tasks.protocol import Task
from spanbert_jax.tasks.seq2seq import Seq2SeqTask

TASK_FILE = "task.json"
MODEL_FOLDER = "model"


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """A network that can do a task."""
    name: str
    task: Task
    model: EncoderModel | EncoderDecoder
    params: Any
    tokenizer: Tokenizer


def describe_task(name: str, task: Task) -> dict[str, Any]:
    """A task with what it has learned, as JSON holds it."""
    return {"task": name, "settings": task.settings, "facts": task.facts}


def save_model(directory: pathlib.Path, fine_tuned: FineTuned) -> None:
    """Writes a network and its task, in place of those that are there.

    Raises:
      UserError: when the disk does not take it; then what was there is still there.
    """
    new = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        _save_network(fine_tuned, new)
        text = json.dumps(describe_task(fine_tuned.name, fine_tuned.task), indent=2, ensure_ascii=False)
        (new / TASK_FILE).write_text(text + "\n", encoding="utf-8")
        replace_directory(new, directory)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror}); make room, and run the same "
                        "again") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _save_network(fine_tuned: FineTuned, folder: pathlib.Path) -> None:
    model, params, tokenizer = fine_tuned.model, fine_tuned.params, fine_tuned.tokenizer
    if isinstance(model, EncoderModel):
        save_pretrained(model, params, folder, tokenizer)
        return
    target = fine_tuned.task.target_tokenizer(tokenizer)
    save_encoder_decoder(model, params, folder, fine_tuned.task.generation(tokenizer), tokenizer,
                         None if target is tokenizer else target)


def load_model(directory: str | pathlib.Path, dtype: str = "float32",
               settings: Mapping[str, Any] | None = None) -> FineTuned:
    """A network and its task from the directory that fine-tuning has written, or the workdir that holds it.

    Args:
      dtype: of the computation.
      settings: those of the task's `free` ones that are to be others than in training.

    Raises:
      UserError: naming the file that is missing or wrong, or the setting that cannot be so.
    """
    folder = pathlib.Path(directory).expanduser()
    if (folder / MODEL_FOLDER / TASK_FILE).is_file():
        folder = folder / MODEL_FOLDER
    name, task = _read_task(folder / TASK_FILE)
    if settings:
        task = make_task(name, {**task.settings, **_checked(task, settings)}, task.facts)
    if is_workdir(folder):
        raise UserError(f"{folder}: a run of a task that has not finished; start its command again, and what it makes "
                        f"will be in {folder / MODEL_FOLDER}")
    if isinstance(task, Seq2SeqTask):
        return FineTuned(name, task, *load_encoder_decoder(folder, dtype), load_tokenizer(folder))
    pretrained = open_pretrained(folder, dtype)
    model = pretrained.model(task.head)
    if pretrained.head != task.head or task.labels and task.labels != model.labels:
        raise UserError(f"{folder}: its network does not go with the task in {TASK_FILE}; fetch both again")
    return FineTuned(name, task, model, load_params(pretrained, model), load_tokenizer(folder))


def _checked(task: Task, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the types that they have in training."""
    found = {}
    for name, value in settings.items():
        if name not in task.free:
            raise UserError(f"setting {name!r}: unknown, or fixed by training; allowed are "
                            f"{', '.join(task.free) or 'none of this task'}")
        kind = type(task.settings[name])
        if kind is float and type(value) is int:
            value = float(value)
        if kind in (tuple, list) and isinstance(value, (tuple, list)):
            value = kind(value)
        if type(value) is not kind:
            raise UserError(f"setting {name!r} is {value!r}: it must be of type {kind.__name__}, like "
                            f"{task.settings[name]!r}")
        found[name] = value
    return found


def _read_task(file: pathlib.Path) -> tuple[str, Task]:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(stored["settings"]["length"], int):
            raise ValueError("length is no whole number")
        task = make_task(stored["task"], stored["settings"], stored["facts"])
        if task.head.endswith("classification") and not task.labels:
            raise ValueError("it names no labels")
        return stored["task"], task
    except FileNotFoundError:
        raise UserError(f"{file.parent}: no fine-tuned network here ({TASK_FILE} is missing); give the directory "
                        f"{MODEL_FOLDER} that a finished fine-tuning run has written, or its workdir") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{file}: not a task as fine-tuning writes it ({error}); fetch it again") from None
