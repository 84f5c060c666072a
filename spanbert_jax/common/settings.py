"""Typed settings: frozen dataclasses whose fields carry help and allowed values, from which everything else is made.

A section of a config is a subclass of `Settings`. Defaults, config files, command-line flags, `--help`, validation and
the reference page of all fields come from its fields, so that each is written once.
"""
import dataclasses
import operator
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from spanbert_jax.common.errors import UserError, suggestion
from spanbert_jax.common.types import is_of_type, kinds_of, type_words

S = TypeVar("S", bound="Settings")
# Where configs come from, for the hints of arguments and their messages.
CONFIG_ADVICE = "load_config(FILE) reads a config file, and default_config() and default_task_config(NAME) start one"
Choices = Sequence[Any] | Callable[[], Sequence[Any]]


def setting(default: Any, help: str, *, choices: Choices | None = None, minimum: float | None = None,
            maximum: float | None = None, above: float | None = None, below: float | None = None,
            check: Callable[[str, Any], Any] | None = None, overridable: bool = False,
            replaces: Sequence[str] = ()) -> Any:
    """A field of a `Settings` class.

    Args:
      default: its default; a `Settings` instance makes the field a section.
      help: one sentence for `--help` and the reference page.
      choices: all allowed values, or a function that lists them when they are needed.
      minimum, maximum: allowed range, ends included.
      above, below: allowed range, ends excluded.
      check: function of the field's name and its value that raises UserError for a value that is not allowed.
      overridable: a task's setting that may be changed after training, or an architecture's that may be changed where
        a run starts from weights.
      replaces: fields of the section that get their defaults back where a command line overrides this one.
    """
    return dataclasses.field(default=default, metadata={
        "help": help, "choices": choices, "minimum": minimum, "maximum": maximum, "above": above, "below": below,
        "check": check, "overridable": overridable, "replaces": tuple(replaces)})


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of all sections."""

    def validate(self, path: str) -> None:
        """Checks every field, and those of nested sections; a section with further rules extends this.

        Args:
          path: of this section in the config, such as "config.masking"; "" for none.

        Raises:
          UserError: one line with the field, its value, what is allowed and what to do.
        """
        for field in dataclasses.fields(self):
            value, name = getattr(self, field.name), qualified(path, field.name)
            if value is None:  # not set, where the type of the field allows it
                continue
            if isinstance(value, Settings):
                value.validate(name)
            elif allowed := allowed_values(field):
                require(is_allowed(field, value), name, value, allowed)
            if check := field.metadata.get("check"):
                check(name, value)

    @classmethod
    def for_values(cls: type[S], values: Mapping[str, Any], path: str) -> tuple[type[S], Mapping[str, Any]]:
        """The class of a section with these values, and the values for it; sections of several kinds override this.

        Raises UserError, naming the section `path`, if there is no such kind.
        """
        return cls, values

    def replace(self: S, **changes: Any) -> S:
        """A copy with other values."""
        return dataclasses.replace(self, **changes)


def qualified(path: str, name: str) -> str:
    """The name of a field of a section, for messages."""
    return f"{path}.{name}" if path else name


def require(holds: bool, name: str, value: Any, allowed: str) -> None:
    """Raises UserError, naming a field and its value, unless a condition holds."""
    if not holds:
        raise UserError(f"{name}={value!r}: {allowed}")


def choices_of(field: dataclasses.Field) -> tuple[Any, ...] | None:
    """All allowed values of a field, if they are listed."""
    choices = field.metadata.get("choices")
    return None if choices is None else tuple(choices() if callable(choices) else choices)


def _limits(field: dataclasses.Field) -> list[tuple[str, str, Callable[[Any, Any], bool]]]:
    """The limits of a field: in words, by name, and the comparison with a value."""
    limits = (("at least", "minimum", operator.ge), ("above", "above", operator.gt),
              ("at most", "maximum", operator.le), ("below", "below", operator.lt))
    return [limit for limit in limits if field.metadata.get(limit[1]) is not None]


def is_allowed(field: dataclasses.Field, value: Any) -> bool:
    """Whether a value is one of the choices and within the range of a field."""
    choices = choices_of(field)
    return ((choices is None or value in choices)
            and all(within(value, field.metadata[limit]) for _, limit, within in _limits(field)))


def allowed_values(field: dataclasses.Field) -> str:
    """What `validate` allows of a field alone, in words; "" if anything of its type."""
    if (choices := choices_of(field)) is not None:
        return f"allowed are {', '.join(map(repr, choices))}"
    parts = [f"{text} {field.metadata[limit]}" for text, limit, _ in _limits(field)]
    return f"must be {' and '.join(parts)}" if parts else ""


def to_dict(settings: Settings) -> dict[str, Any]:
    """Nested dictionaries of the values of a section, for JSON and ConfigDict."""
    values = ((field.name, getattr(settings, field.name)) for field in dataclasses.fields(settings))
    return {name: to_dict(value) if isinstance(value, Settings) else value for name, value in values}


def from_dict(cls: type[S], values: Mapping[str, Any], path: str = "config", defaults: S | None = None) -> S:
    """A section from nested dictionaries, and `defaults` for other fields, by default those of the class.

    Raises UserError for unknown fields and values of wrong type.
    """
    require(isinstance(values, Mapping), path, values, "is a section; set its fields")
    cls, values = cls.for_values(values, path)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise UserError(f"{path} has no field {name!r}; {suggestion(name, fields)}it has "
                            f"{', '.join(fields) or 'none'}")
        found[name] = _converted(hints[name], value, f"{path}.{name}", fields[name].default)
    return (defaults if isinstance(defaults, cls) else cls()).replace(**found)


def _converted(hint: Any, value: Any, name: str, default: Any) -> Any:
    if isinstance(hint, type) and issubclass(hint, Settings):
        return from_dict(hint, value, name, default)
    kinds = kinds_of(hint)
    value = value.item() if isinstance(value, np.generic) else value
    if str in kinds and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if any(typing.get_origin(kind) is tuple for kind in kinds):
        value = _as_tuple(value)
    require(is_of_type(hint, value), name, value, f"must be of type {type_words(hint)}")
    return value


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, (list, tuple)) else value
