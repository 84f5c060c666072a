"""A fine-tuned model stored with its task: a transformers directory with a task.json in it."""
import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from tokenizers import Tokenizer

from spanbert_jax.common.directories import replace_directory
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.paths import user_path
from spanbert_jax.common.registry import load_plugins
from spanbert_jax.common.settings import from_dict, to_dict
from spanbert_jax.interop.pretrained import load_tokenizer
from spanbert_jax.interop.sources.location import is_workdir
from spanbert_jax.model import ComputeConfig
from spanbert_jax.tasks import make_task
from spanbert_jax.tasks.protocol import Task, fitted_values

TASK_FILE = "task.json"
MODEL_FOLDER = "model"


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """A model that performs a task."""
    name: str  # registered name of the task
    task: Task
    model: nn.Module
    params: Any
    tokenizer: Tokenizer
    plugins: tuple[str, ...] = ()  # modules to import before the task is looked up


def task_json(name: str, task: Task, plugins: tuple[str, ...] = ()) -> str:
    """The contents of task.json."""
    description = {"task": name, "settings": to_dict(task.settings), "fitted": fitted_values(task)}
    description |= {"plugins": list(plugins)} if plugins else {}
    return json.dumps(description, indent=2, ensure_ascii=False) + "\n"


def save_model(directory: pathlib.Path, fine_tuned: FineTuned) -> None:
    """Writes a model and its task over what is there. Raises UserError, and keeps that, if it cannot be written."""
    new = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        fine_tuned.task.save_weights(new, fine_tuned.model, fine_tuned.params, fine_tuned.tokenizer)
        text = task_json(fine_tuned.name, fine_tuned.task, fine_tuned.plugins)
        (new / TASK_FILE).write_text(text, encoding="utf-8")
        replace_directory(new, directory)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror}); free some space, and run the same command "
                        "again") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


def load_model(directory: str | os.PathLike, dtype: str = "float32",
               settings: Mapping[str, Any] | None = None) -> FineTuned:
    """A model and its task from the directory that fine-tuning wrote, or the workdir that contains it.

    Args:
      dtype: of the computation.
      settings: new values of the task's overridable settings.

    Raises:
      UserError: a file is missing or wrong, or the dtype or a setting is not allowed.
    """
    ComputeConfig(dtype=dtype).validate("")
    folder = user_path(directory)
    if (folder / MODEL_FOLDER / TASK_FILE).is_file():
        folder = folder / MODEL_FOLDER
    name, task, plugins = _read_task(folder / TASK_FILE)
    if settings:
        task = with_overrides(task, settings)
    if is_workdir(folder):
        raise UserError(f"{folder}: an unfinished fine-tuning run; run its command again, and the model will be in "
                        f"{folder / MODEL_FOLDER}")
    tokenizer = load_tokenizer(folder)
    return FineTuned(name, task, *task.load_weights(folder, dtype, tokenizer), tokenizer, plugins)


def with_overrides(task: Task, settings: Mapping[str, Any]) -> Task:
    """The task with other overridable settings. Raises UserError if one is unknown, fixed by training, or wrong."""
    allowed = [field.name for field in dataclasses.fields(task.settings) if field.metadata.get("overridable")]
    for name in settings:
        if name not in allowed:
            raise UserError(f"setting {name!r}: unknown, or fixed by training; allowed are "
                            f"{', '.join(allowed) or 'none for this task'}")
    changed = from_dict(task.Settings, {**to_dict(task.settings), **settings}, "config.task")
    return dataclasses.replace(task, settings=changed)


def _read_task(file: pathlib.Path) -> tuple[str, Task, tuple[str, ...]]:
    """Name, task and plugins."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        plugins = tuple(stored.get("plugins", ()))
        load_plugins(plugins)
        settings = stored["settings"]
        fitted = stored["fitted"] if "fitted" in stored else stored["facts"]  # its name in older versions
        return stored["task"], make_task(stored["task"], settings, fitted), plugins
    except FileNotFoundError:
        raise UserError(f"{file.parent}: contains no fine-tuned model ({TASK_FILE} is missing); give the directory "
                        f"{MODEL_FOLDER} that a finished fine-tuning run has written, or its workdir") from None
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{file}: not a task file as fine-tuning writes it ({error}); fetch it again") from None
