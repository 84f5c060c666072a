"""Reads a config file, and overrides its fields from the command line."""
from __future__ import annotations

import importlib.util
import pathlib
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

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
    config: Any = _read_file(path)
    overrides = [_with_new_name(override) for override in overrides]
    try:
        values, rest = _parse(config, overrides)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(_explain(path, overrides, error)) from error
    if rest:
        raise UserError(f"{rest[0]}: not an override; write --config.FIELD=VALUE")
    config = values["config"].value
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
    try:
        module = _import_file(file)
        if not callable(getattr(module, "get_config", None)):
            raise UserError(f"--config={path}: {file} has no function get_config; it must return the config")
        config = module.get_config(*argument)
    except UserError:
        raise
    except Exception as error:  # of the file, whatever it may be
        raise UserError(f"--config={path}: {_describe(file, error)}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"--config={path}: get_config returns {type(config).__name__}, not a ConfigDict; return "
                        "what default_config() or default_task_config(NAME) gave")
    try:
        _move_renamed(config)
        as_run_config(config)
    except UserError as error:
        raise UserError(f"--config={path}: {error}") from None
    return config


def _import_file(file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("config_config", file)
    if spec is None or spec.loader is None:
        raise UserError(f"--config={file}: not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _describe(file: str, error: Exception) -> str:
    """An error of a config file in one line, with the line of the file that raised it."""
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    else:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    place = f"{file}, line {lines[-1]}" if lines else file
    return f"{place}: {type(error).__name__}: {' '.join(str(error).split())}"


def _move_renamed(config: ml_collections.ConfigDict) -> None:
    """Moves the fields that a config file has set by their old names."""
    for old in RENAMED:
        section, field = old.split(".")
        if section in config and field in config[section]:
            new_section, new_field = new_name(old).split(".")
            if new_section not in config:
                config[new_section] = ml_collections.ConfigDict()
            value = config[section][field]
            try:
                config[new_section][new_field] = value
            except TypeError:
                kind = type(config[new_section][new_field]).__name__
                raise UserError(f"config.{RENAMED[old]}={value!r}: must be of type {kind}") from None
            del config[section][field]


def _with_new_name(override: str) -> str:
    """An override with its field's name of today."""
    name, equals, text = override.partition("=")
    prefix, dot, field = name.partition(".")
    return f"{prefix}{dot}{new_name(field)}{equals}{text}"


def _parse(config: ml_collections.ConfigDict, overrides: Sequence[str]) -> tuple[flags.FlagValues, list[str]]:
    """The parsed flags, and the arguments that are none."""
    values = flags.FlagValues()
    arguments = ["spanbert-jax", *overrides]
    config_flags.DEFINE_config_dict("config", config, flag_values=values, lock_config=True, sys_argv=arguments)
    return values, values(arguments, known_only=True)[1:]


def _explain(path: str, overrides: Sequence[str], error: Exception) -> str:
    """One line about an override that cannot be applied."""
    config: Any = _read_file(path)
    for override in overrides:
        name, _, text = override.lstrip("-").partition("=")
        value = config
        for depth, key in enumerate(name.split(".")[1:], 2):
            if not isinstance(value, ml_collections.ConfigDict) or key not in value:
                fields = list(value) if isinstance(value, ml_collections.ConfigDict) else []
                place = ".".join(name.split(".")[:depth - 1])
                return (f"{override}: {place} has no field {key!r}; {suggestion(key, fields)}it has "
                        f"{', '.join(fields) or 'no fields'}")
            value = value[key]
        if isinstance(value, ml_collections.ConfigDict):
            return f"{override}: {name} is a section; set one of its fields: {', '.join(value)}"
        try:
            _parse(config, [override])
        except (flags.Error, TypeError, ValueError):
            return f"{override}: must be of type {type(value).__name__}, like {value!r}, and {text!r} is not"
    return f"--config={path}: {' '.join(str(error).split())}"
