"""Finds and reads a config file, and overrides its fields from the command line."""
import copy
import dataclasses
import inspect
import os
import pathlib
import runpy
import traceback
import typing
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import ml_collections
from absl import flags
from ml_collections import config_flags

import spanbert_jax
from spanbert_jax.common.errors import UserError, suggestion
from spanbert_jax.common.paths import user_path
from spanbert_jax.common.registry import load_plugins
from spanbert_jax.common.settings import CONFIG_ADVICE, Settings, to_dict
from spanbert_jax.common.types import kinds_of
from spanbert_jax.training.renames import RENAMED, new_name

if TYPE_CHECKING:
    from spanbert_jax.training.config import RunConfig

Config = Annotated[ml_collections.ConfigDict | Settings, CONFIG_ADVICE]  # what public functions take
_ARCHITECTURE = "model.architecture"


def shipped_configs() -> dict[str, pathlib.Path]:
    """The configs that come with the package, by name. A wheel has them inside the package, a checkout beside it."""
    package = pathlib.Path(spanbert_jax.__file__).parent
    folders = [package / "configs", package.parent / "configs"]
    return {file.stem: file for file in sorted(folders[not folders[0].is_dir()].glob("*.py"))}


def load_config(path: str | os.PathLike, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """The config of a file with overrides applied; its plugins are imported.

    Args:
      path: a config file, or the name of one that comes with the package, with its argument behind a colon:
        "configs/base.py:scheme=whole_word" or "base:scheme=whole_word"; or the config.json of a workdir.
      overrides: "--config.optimizer.learning_rate=1e-4" and the like. Old names of fields are allowed.

    Raises:
      UserError: the file does not exist or fails, a field does not exist, or a value has another type.
    """
    config = with_overrides(_read_file(os.fspath(path), overrides), overrides)
    load_plugins(config.get("plugins", ()))
    return config


def with_overrides(config: ml_collections.ConfigDict, overrides: Sequence[str]) -> ml_collections.ConfigDict:
    """A locked copy of a config with the overrides of `load_config`. Raises UserError as `load_config`."""
    config = copy.deepcopy(ml_collections.ConfigDict(config))  # a FrozenConfigDict becomes writable
    # The architecture first: it decides which other fields the section has.
    ordered = sorted(overrides, key=lambda override: not override.startswith(f"--config.{_ARCHITECTURE}="))
    given = {_override(config, override) for override in ordered}
    _restore_replaced(config, given)
    return config.lock()


def _restore_replaced(config: ml_collections.ConfigDict, given: set[str]) -> None:
    """Restores the defaults of fields that overridden ones replace, such as data.sources where data.path is given."""
    typed = as_run_config(config)
    for section, name in (field.split(".") for field in given if "." in field):
        settings = getattr(typed, section)
        fields = {field.name: field for field in dataclasses.fields(settings)}
        for other in fields[name].metadata.get("replaces", ()) if getattr(settings, name) else ():
            if f"{section}.{other}" not in given:
                config[section][other] = fields[other].default


def as_run_config(config: ml_collections.ConfigDict | Settings) -> "RunConfig":
    """The typed config of a ConfigDict: of fine-tuning if it has a section `task`, else of pretraining.

    Raises:
      UserError: a field does not exist, or its value has another type.
    """
    from spanbert_jax.finetuning.config import as_finetuning_config
    from spanbert_jax.pretraining.config import as_pretraining_config
    from spanbert_jax.training.config import RunConfig
    if isinstance(config, RunConfig):
        return config
    of_task = isinstance(config, ml_collections.ConfigDict) and "task" in config
    return as_finetuning_config(config) if of_task else as_pretraining_config(config)


def _read_file(path: str, overrides: Sequence[str]) -> ml_collections.ConfigDict:
    """The config of a file, with renamed fields in their new places; `overrides` are checked, and not applied."""
    from spanbert_jax.training.config import CONFIG_FILE
    name, *argument = path.split(":", 1)
    file = _find_file(path, name)
    stored = file.name == CONFIG_FILE
    if stored and argument:
        raise UserError(f"--config={path}: the stored config of a run has no variants; leave out :{argument[0]}")
    if not stored and file.suffix != ".py":
        raise UserError(f"--config={path}: not a Python file; a config is a .py file whose function get_config() "
                        f"returns it, or the {CONFIG_FILE} of a workdir")
    try:
        config = _stored_config(file) if stored else _call_get_config(str(file), argument, overrides)
        typed = as_run_config(config)
    except UserError as error:
        raise error if stored else UserError(f"--config={path}: {error}") from None
    if isinstance(config, ml_collections.FrozenConfigDict):
        config = ml_collections.ConfigDict(config)
    with config.unlocked():
        for old, new in RENAMED.items():
            section, field = old.split(".")
            if section in config and field in config[section]:
                new_section, new_field = new.split(".")
                config.update({new_section: {new_field: getattr(getattr(typed, new_section), new_field)}})
                del config[section][field]
    return config


def _find_file(path: str, name: str) -> pathlib.Path:
    """A file, or the one of a name of the configs that come with the package; `path` is for messages."""
    shipped = shipped_configs()
    file = user_path(name)
    if not file.is_file() and name not in shipped:
        raise UserError(f"--config={path}: no such file {name}; {suggestion(file.stem, shipped)}give a file, or a name "
                        f"that `spanbert-jax configs` lists: {', '.join(shipped)}")
    return file if file.is_file() else shipped[name]


def _stored_config(file: pathlib.Path) -> ml_collections.ConfigDict:
    """The config that a run has stored in its workdir, with defaults for fields that it lacks."""
    from spanbert_jax.training.config import load_values
    values = ml_collections.ConfigDict(load_values(file.parent))
    try:
        return ml_collections.ConfigDict(to_dict(as_run_config(values)))
    except UserError as error:
        raise UserError(f"{file}: the stored config of the run has a wrong field ({error}); start the run's own "
                        "command again, with --config, which writes it") from None


def _call_get_config(file: str, argument: Sequence[str], overrides: Sequence[str]) -> ml_collections.ConfigDict:
    """What `get_config` of a Python file returns.

    `FROM_ARGUMENT` of the file has the fields from which it derives others, and the name of the argument that sets
    each: overrides of these fields are refused.
    """
    try:
        module = runpy.run_path(file)
        for field, name in module.get("FROM_ARGUMENT", {}).items():
            if any(override.startswith(f"--config.{field}=") for override in overrides):
                raise UserError(f"other fields follow from {field}; give it in the argument, as :{name}=VALUE, and "
                                f"leave out --config.{field}")
        get_config = module.get("get_config")
        if not callable(get_config):
            raise UserError(f"{file} has no function get_config; it must return the config")
        if argument and not inspect.signature(get_config).parameters:
            raise UserError(f"{file} has no variants; leave out :{argument[0]}")
        config = get_config(*argument)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # of the file, whatever it may be
        raise UserError(_describe(file, error)) from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"get_config returns {type(config).__name__}, not a ConfigDict; return "
                        "what default_config() or default_task_config(NAME) gave")
    return config


def _describe(file: str, error: BaseException) -> str:
    """An error of a config file in one line, with the line of the file that raised it."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError) and not lines:  # of the file itself, not of a module that it imports
        lines = [error.lineno]
    place = f"{file}, line {lines[-1]}" if lines and lines[-1] else file
    return f"{place}: {type(error).__name__}: {' '.join(str(error).split())}"


def _of_other_architecture(place: str, key: str) -> str:
    """For an error: which architecture has a field that config.model does not have; "" if none has it."""
    from spanbert_jax.training.config import encoder_names, model_section
    for name in encoder_names() if place == "config.model" else ():
        if key in (field.name for field in dataclasses.fields(model_section(name))):
            return f", which --config.{_ARCHITECTURE}={name} adds"
    return ""


def _override(config: ml_collections.ConfigDict, override: str) -> str:
    """Sets a field of a config as an override says, and returns the field's name."""
    name, equals, text = override.partition("=")
    prefix, _, field = name.partition(".")
    if prefix != "--config" or not field:
        raise UserError(f"{override}: not an override; write --config.FIELD=VALUE")
    field = new_name(field)
    override = f"--config.{field}{equals}{text}"
    value, place = config, "config"
    for key in field.split("."):
        fields = list(value) if isinstance(value, ml_collections.ConfigDict) else []
        if key not in fields:
            raise UserError(f"{override}: {place} has no field {key!r}{_of_other_architecture(place, key)}; "
                            f"{suggestion(key, fields)}it has {', '.join(fields) or 'no fields'}")
        value, place = value[key], f"{place}.{key}"
    if isinstance(value, ml_collections.ConfigDict):
        raise UserError(f"{override}: {place} is a section; set one of its fields: {', '.join(value)}")
    example = "" if (kind := _make_typed(config, field)) else f", like {value!r}"
    empty = "()" if isinstance(value, tuple) and equals and not text else ""
    values, arguments = flags.FlagValues(), ["spanbert-jax", override + empty]
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=arguments)
    try:
        values(arguments)
    except (flags.Error, TypeError, ValueError):
        raise UserError(f"{override}: must be of type {(kind or type(value)).__name__}{example}, and {text!r} is not"
                        ) from None
    if field == _ARCHITECTURE:
        config.model = ml_collections.ConfigDict(to_dict(as_run_config(config).model))
    return field


def _make_typed(config: ml_collections.ConfigDict, field: str) -> type | None:
    """Gives a field that may be None its type, which decides how a flag is read, and returns it; None for others."""
    *sections, name = field.split(".")
    typed: Settings = as_run_config(config)
    for section in sections:
        config, typed = config[section], getattr(typed, section)
    kinds = kinds_of(typing.get_type_hints(type(typed))[name])
    if type(None) not in kinds:
        return None
    kind, = (kind for kind in kinds if kind is not type(None))
    with config.ignore_type():
        config[name] = ml_collections.config_dict.placeholder(kind)
    return kind
