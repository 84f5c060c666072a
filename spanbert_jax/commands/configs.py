"""Reading a config file and the overrides of its fields from a command line."""
from __future__ import annotations

import pathlib
from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from spanbert_jax.common.errors import UserError, suggestion


def load_config(path: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """The config of a file with overrides applied.

    Args:
      path: a config file, with its own argument behind a colon: "configs/base.py:scheme=whole_word".
      overrides: "--config.optimizer.learning_rate=1e-4" and the like.

    Raises:
      UserError: when there is no such file, a field does not exist, or a value has another type.
    """
    file = path.partition(":")[0]
    if not pathlib.Path(file).is_file():
        raise UserError(f"--config={path}: no such file {file}; configs lie under configs/ of the repository")
    try:
        values, rest = _read(path, overrides)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(_explain(path, overrides, error)) from error
    if rest:
        raise UserError(f"{rest[0]}: not an override; write --config.FIELD=VALUE")
    return values["config"].value


def _read(path: str, overrides: Sequence[str]) -> tuple[flags.FlagValues, list[str]]:
    """The parsed flags, and the arguments that are none."""
    values = flags.FlagValues()
    arguments = ["spanbert-jax", f"--config={path}", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=values, lock_config=True, sys_argv=arguments)
    return values, values(arguments, known_only=True)[1:]


def _explain(path: str, overrides: Sequence[str], error: Exception) -> str:
    """One line about an override or a config file that does not go."""
    try:
        config = _read(path, ())[0]["config"].value
    except Exception:  # then the fault lies in the file itself
        overrides = ()
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
            _read(path, [override])
        except (flags.Error, TypeError, ValueError):
            return f"{override}: must be of type {type(value).__name__}, like {value!r}, and {text!r} is not"
    return f"--config={path}: {' '.join(str(error).split())}"
