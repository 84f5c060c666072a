"""A fine-tuned model stored with its task: a transformers directory with a task.json in it."""
import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from tokenizers import Tokenizer

from spanbert_jax.common.directories import partial_directory, replace_directory
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import write_text
from spanbert_jax.common.json_files import read_json
from spanbert_jax.common.manifest import README_FILE, foreign_file, require_intact, seal_folder
from spanbert_jax.common.paths import user_path
from spanbert_jax.common.registry import load_plugins
from spanbert_jax.common.settings import from_dict, to_dict
from spanbert_jax.interop.formats.model_card import model_card
from spanbert_jax.interop.pretrained import Pretrained, check_entries, load_tokenizer
from spanbert_jax.interop.sources.location import is_workdir
from spanbert_jax.model import ComputeConfig
from spanbert_jax.tasks import TASKS, make_task
from spanbert_jax.tasks.protocol import OWN_WEIGHTS_FILE, Model, Task, fitted_values

TASK_FILE = "task.json"
MODEL_FOLDER = "model"


class _TaskFile(TypedDict):
    task: str
    settings: dict[str, Any]
    fitted: NotRequired[dict[str, Any]]
    facts: NotRequired[dict[str, Any]]  # its name in older versions
    plugins: NotRequired[list[str]]
    run: NotRequired[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class StoredTask:
    """What task.json holds."""
    name: str  # registered name of the task
    task: Task
    plugins: tuple[str, ...] = ()  # modules to import before the task is looked up
    run: Mapping[str, Any] | None = None  # about its training, as `formats.model_card` shows it; None if not known

    def to_json(self) -> str:
        """The contents of task.json."""
        description = {"task": self.name, "settings": to_dict(self.task.settings), "fitted": fitted_values(self.task)}
        description |= {"plugins": list(self.plugins)} if self.plugins else {}
        description |= {"run": dict(self.run)} if self.run else {}
        return json.dumps(description, indent=2, ensure_ascii=False) + "\n"

    @property
    def facts(self) -> dict[str, Any]:
        """What the card of a model with this task shows."""
        return {"task": self.name, **(self.run or {})}


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """A model that performs a task."""
    stored: StoredTask
    model: Model
    params: Any
    tokenizer: Tokenizer

    @property
    def name(self) -> str:
        """The registered name of the task."""
        return self.stored.name

    @property
    def task(self) -> Task:
        """The task."""
        return self.stored.task


def save_model(directory: pathlib.Path, fine_tuned: FineTuned) -> None:
    """Writes a model and its task over an earlier one. Raises UserError, and keeps that, if it cannot be written."""
    require_replaceable(directory)
    name = directory.parent.name if directory.name == MODEL_FOLDER else directory.name
    try:
        with partial_directory(directory.parent, directory.name) as new:
            write_model(new, fine_tuned, name)
            require_replaceable(directory)
            replace_directory(new, directory)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror}); free some space, and run the same command "
                        "again") from None


def write_model(folder: pathlib.Path, fine_tuned: FineTuned, name: str) -> None:
    """Writes a model, called `name` in its card, and its task into an empty folder. Raises OSError or UserError."""
    fine_tuned.task.save_weights(folder, fine_tuned.model, fine_tuned.params, fine_tuned.tokenizer)
    write_text(folder / TASK_FILE, fine_tuned.stored.to_json())
    write_text(folder / README_FILE, model_card(name, fine_tuned.model, "huggingface", fine_tuned.stored.facts))
    seal_folder(folder)


def require_replaceable(directory: pathlib.Path) -> None:
    """Raises UserError unless nothing, or a model that `save_model` has written, without other files, is at a path."""
    if directory.is_symlink() or (directory.exists() and not (directory / TASK_FILE).is_file()):
        raise UserError(f"{directory}: not a model that fine-tuning has written, and not replaced by one; move it away")
    if name := foreign_file(directory):
        raise UserError(f"{directory / name}: was not written by fine-tuning, which replaces the whole folder; move it "
                        "away")


def load_model(directory: str | os.PathLike, dtype: str = "float32",
               settings: Mapping[str, Any] | None = None) -> FineTuned:
    """A model and its task from the directory that fine-tuning wrote, or the workdir that contains it.

    Args:
      dtype: of the computation.
      settings: new values of the task's overridable settings.

    Raises:
      UserError: a file is missing or wrong, or differs from its manifest, or the dtype or a setting is not allowed.
    """
    ComputeConfig(dtype=dtype).validate("")
    folder = model_folder(directory)
    stored = read_task(folder, settings)
    if is_workdir(folder):
        raise UserError(f"{folder}: an unfinished fine-tuning run; run its command again, and the model will be in "
                        f"{folder / MODEL_FOLDER}")
    tokenizer = load_tokenizer(folder)
    network, params = stored.task.load_weights(folder, dtype, tokenizer)
    check_entries(tokenizer, network.config.vocab_size, f"{folder}: its tokenizer")
    return FineTuned(stored, network, params, tokenizer)


def model_folder(directory: str | os.PathLike) -> pathlib.Path:
    """The directory that fine-tuning wrote, given it or the workdir that contains it."""
    folder = user_path(directory)
    return folder / MODEL_FOLDER if (folder / MODEL_FOLDER / TASK_FILE).is_file() else folder


def with_overrides(task: Task, settings: Mapping[str, Any]) -> Task:
    """The task with other overridable settings. Raises UserError if one is unknown, fixed by training, or wrong."""
    allowed = [field.name for field in dataclasses.fields(task.settings) if field.metadata.get("overridable")]
    for name in settings:
        if name not in allowed:
            raise UserError(f"setting {name!r}: unknown, or fixed by training; allowed are "
                            f"{', '.join(allowed) or 'none for this task'}")
    changed = from_dict(task.Settings, {**to_dict(task.settings), **settings}, "config.task")
    return dataclasses.replace(task, settings=changed)


def read_task(folder: pathlib.Path, settings: Mapping[str, Any] | None = None) -> StoredTask:
    """The task.json of a model, with new values of overridable settings. Raises as `load_model`."""
    require_intact(folder)
    stored = _read_task_file(folder / TASK_FILE)
    return dataclasses.replace(stored, task=with_overrides(stored.task, settings)) if settings else stored


def find_task(folder: pathlib.Path, settings: Mapping[str, Any] | None = None) -> StoredTask | None:
    """The result of `read_task`; None if the model in a folder is not fine-tuned."""
    return read_task(folder, settings) if (folder / TASK_FILE).is_file() else None


def task_files(stored: StoredTask, folder: pathlib.Path) -> dict[str, bytes]:
    """The files that make a directory of transformers one that `load_model` reads, given the model's folder."""
    own = folder / OWN_WEIGHTS_FILE
    return {TASK_FILE: stored.to_json().encode()} | ({own.name: own.read_bytes()} if own.is_file() else {})


def import_task(name: str, pretrained: Pretrained, settings: Mapping[str, Any]) -> StoredTask:
    """The task of an encoder that was fine-tuned elsewhere, by its head and the given settings.

    Raises UserError if the model is not of this task.
    """
    cls, head = TASKS.get(name), pretrained.head
    try:
        if head.name != cls.head:
            raise UserError(f"the model has a {head.name or 'missing'} head, not that of the task; give the model's "
                            "task, or fine-tune it")
        return StoredTask(name, cls.of_head(head, pretrained.config.max_positions, settings))
    except UserError as error:
        raise UserError(f"--task {name}: {pretrained.path}: {error}") from None


def _read_task_file(file: pathlib.Path) -> StoredTask:
    try:
        stored = read_json(file, _TaskFile)
    except FileNotFoundError:
        if not file.parent.exists():
            raise UserError(f"{file.parent}: no such directory; give the directory of a fine-tuned model") from None
        raise UserError(f"{file.parent}: contains no fine-tuned model ({TASK_FILE} is missing); give the directory "
                        f"{MODEL_FOLDER} that a finished fine-tuning run has written, or its workdir; a model that was "
                        "fine-tuned elsewhere gets one by `spanbert-jax import --task`") from None
    plugins, fitted = tuple(stored.get("plugins", ())), stored.get("fitted", stored.get("facts"))
    try:
        load_plugins(plugins, file.parent)
        if fitted is None:
            raise UserError("fitted is missing; fetch it again")
        return StoredTask(stored["task"], make_task(stored["task"], stored["settings"], fitted), plugins,
                          stored.get("run"))
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
