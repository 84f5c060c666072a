"""Checks values against type hints, so that a value of a wrong type gives a one-line error."""
import collections.abc
import functools
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from spanbert_jax.common.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)  # *args and **kwargs, not checked


def check_arguments(function: F) -> F:
    """The function with a check of its arguments: UserError for one that is not of the type of its hint.

    Hints are those of the parameters only, and must not be strings. A text in `typing.Annotated` says what to do.
    Numbers of NumPy count as those of Python.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # raises it again, with the name of the function
        for name, value in bound.arguments.items():
            parameter = signature.parameters[name]
            hint, advice = parameter.annotation, "; ".join(["", *getattr(parameter.annotation, "__metadata__", ())])
            hint = hint.__origin__ if advice else hint
            value = value.item() if isinstance(value, np.generic) else value
            if parameter.kind not in _VARIADIC and not is_of_type(hint, value):
                shown = textwrap.shorten(repr(value), 80, placeholder=" ...")
                raise UserError(f"{function.__qualname__}: {name}={shown}: must be of type "
                                f"{type_words(hint)}, not {type(value).__name__}{advice}")
        return function(*args, **kwargs)

    return typing.cast(F, checked)


def kinds_of(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a hint such as `int | None`; a single hint is its only one."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def type_words(hint: Any) -> str:
    """The types that a hint allows, for a message: "str or None"."""
    words = (kind.__name__ if isinstance(kind, type) and not typing.get_args(kind)
             else re.sub(r"\w+\.", "", str(kind)) for kind in kinds_of(hint))
    return " or ".join("None" if word == "NoneType" else word for word in words)


def is_of_type(hint: Any, value: Any) -> bool:
    """Whether a value is of a type, and the elements of a tuple, sequence or mapping are of theirs.

    A bool is no number, and a text is no sequence of texts.
    """
    if hint in (Any, inspect.Parameter.empty) or isinstance(hint, TypeVar):
        return True
    if len(kinds_of(hint)) > 1:
        return any(is_of_type(kind, value) for kind in kinds_of(hint))
    origin, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (int, float):
        return isinstance(value, (int, origin)) and not isinstance(value, bool)
    if not isinstance(value, origin):
        return False
    if origin is collections.abc.Mapping:
        return all(is_of_type(kind, each) for pair in value.items() for kind, each in zip(parts, pair))
    if origin is collections.abc.Sequence:
        return not isinstance(value, (str, bytes)) and all(is_of_type(part, each) for each in value for part in parts)
    if origin is not tuple or not parts:
        return True
    kinds = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
    return len(kinds) == len(value) and all(map(is_of_type, kinds, value))
