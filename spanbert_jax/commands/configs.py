"""Reads a config file, and overrides its fields from the command line."""
from __future__ import annotations

import inspect
import pathlib
import runpy
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

import ml_collections
from absl import flags
from ml_collections import config_flags

from spanbert_jax.common.errors import UserError, suggestion
from spanbert_jax.common.registry import load_plugins
from spanbert_jax.training.renames import RENAMED, new_name

if TYPE_CHECKING:
    from spanbert_jax.training.config import RunConfig


def load_config(path: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """The config of a file with overrides applied; its plugins are imported.

    Args:
      path: a config file, with its argument behind a colon: "configs/base.py:scheme=whole_word".
      overrides: "--config.optimizer.learning_rate=1e-4" and the like. Old names of fields are allowed.

    Raises:
      UserError: the file does not exist or fails, a field does not exist, or a value has another type.
    """
    config = _read_file(path)
    for override in overrides:
        _override(config, override)
    config.lock()
    load_plugins(config.get("plugins", ()))
    return config


def as_run_config(config: ml_collections.ConfigDict) -> RunConfig:
    """The typed config of a ConfigDict: of fine-tuning if it has a section `task`, else of pretraining.

    Raises:
      UserError: a field does not exist, or its value has another type.
    """
    from spanbert_jax.finetuning.config import as_finetuning_config
    from spanbert_jax.pretraining.config import as_pretraining_config
    return as_finetuning_config(config) if "task" in config else as_pretraining_config(config)


def _read_file(path: str) -> ml_collections.ConfigDict:
    """What `get_config` of a file returns, with renamed fields in their new places."""
    file, *argument = path.split(":", 1)
    if not pathlib.Path(file).is_file():
        raise UserError(f"--config={path}: no such file {file}; configs lie under configs/ of the repository")
    if not file.endswith(".py"):
        raise UserError(f"--config={path}: not a Python file; its name must end in .py")
    try:
        get_config = runpy.run_path(file).get("get_config")
        if not callable(get_config):
            raise UserError(f"--config={path}: {file} has no function get_config; it must return the config")
        if argument and not inspect.signature(get_config).parameters:
            raise UserError(f"--config={path}: {file} has no variants; leave out :{argument[0]}")
        config = get_config(*argument)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # of the file, whatever it may be
        raise UserError(f"--config={path}: {_describe(file, error)}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"--config={path}: get_config returns {type(config).__name__}, not a ConfigDict; return "
                        "what default_config() or default_task_config(NAME) gave")
    try:
        as_run_config(config)
    except UserError as error:
        raise UserError(f"--config={path}: {error}") from None
    if isinstance(config, ml_collections.FrozenConfigDict):
        config = ml_collections.ConfigDict(config)
    with config.unlocked():
        for old, new in RENAMED.items():
            section, field = old.split(".")
            if section in config and field in config[section]:
                new_section, new_field = new.split(".")
                config.update({new_section: {new_field: config[section][field]}})
                del config[section][field]
    return config


def _describe(file: str, error: BaseException) -> str:
    """An error of a config file in one line, with the line of the file that raised it."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError) and not lines:  # of the file itself, not of a module that it imports
        lines = [error.lineno]
    place = f"{file}, line {lines[-1]}" if lines and lines[-1] else file
    return f"{place}: {type(error).__name__}: {' '.join(str(error).split())}"


def _override(config: ml_collections.ConfigDict, override: str) -> None:
    """Sets a field of a config as an override says."""
    name, equals, text = override.partition("=")
    prefix, _, field = name.partition(".")
    if prefix != "--config" or not field:
        raise UserError(f"{override}: not an override; write --config.FIELD=VALUE")
    override = f"--config.{new_name(field)}{equals}{text}"
    value, place = config, "config"
    for key in new_name(field).split("."):
        fields = list(value) if isinstance(value, ml_collections.ConfigDict) else []
        if key not in fields:
            raise UserError(f"{override}: {place} has no field {key!r}; {suggestion(key, fields)}it has "
                            f"{', '.join(fields) or 'no fields'}")
        value, place = value[key], f"{place}.{key}"
    if isinstance(value, ml_collections.ConfigDict):
        raise UserError(f"{override}: {place} is a section; set one of its fields: {', '.join(value)}")
    values, arguments = flags.FlagValues(), ["spanbert-jax", override]
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=arguments)
    try:
        values(arguments)
    except (flags.Error, TypeError, ValueError):
        raise UserError(f"{override}: must be of type {type(value).__name__}, like {value!r}, and {text!r} is not"
                        ) from None
