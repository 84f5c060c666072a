"""Small JSON files: read within limits, and checked against the types of their fields.

A type is written as a hint: `dict[str, int]`, `list[str]`, `str | None`, or a `TypedDict` of the fields of an object,
which may have others too.
"""
import functools
import itertools
import json
import pathlib
import re
import reprlib
import types
import typing
from collections.abc import Iterator
from typing import Any, TypeVar

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import open_regular
from spanbert_jax.common.settings import qualified
from spanbert_jax.common.types import is_of_type, kinds_of

T = TypeVar("T")
MAX_BYTES = 64 << 20  # a task.json holds a tokenizer, which has up to 20 MB
MAX_VALUES = 2_000_000  # each takes about 100 bytes of memory
MAX_DEPTH = 50
_MAX_DIGITS = 100  # of an integer: transformers writes 31 for a tokenizer without a longest text
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_WORDS = {dict: "an object", list: "a list", str: "a text", int: "a whole number", float: "a number",
          bool: "true or false", types.NoneType: "null"}


class JsonError(ValueError):
    """What is wrong with a JSON text, in one line."""


def read_json(file: pathlib.Path, kind: type[T], advice: str = "fetch it again") -> T:
    """The content of a JSON file.

    Args:
      kind: its type.
      advice: what to do if the file is wrong, at the end of the message.

    Raises:
      FileNotFoundError: there is no such file.
      UserError: the file is unreadable, too large, not JSON, or a field, which the message names, has another type.
    """
    try:
        return parse_json(read_limited(file), kind)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); {advice}") from None
    except JsonError as error:
        raise UserError(f"{file}: {error}; {advice}") from None


def read_limited(file: pathlib.Path) -> bytes:
    """The content of a regular file. Raises JsonError if it is larger than 64 MiB, OSError if it cannot be read."""
    with open_regular(file) as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise JsonError(f"more than {MAX_BYTES >> 20} MiB, which is the most for such a file")
    return content


def parse_json(content: bytes, kind: type[T]) -> T:
    """The value of a JSON text in UTF-8, of the type `kind`, as `decode_json`. Raises JsonError."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise JsonError(f"not JSON ({error})") from None
    value = decode_json(text)
    if "\\u" in text and not all(_is_unicode(one) for level in _levels(value) for one in level if isinstance(one, str)):
        raise JsonError("half a surrogate pair in a text")
    check_type(value, kind)
    return value


def decode_json(text: str, most_values: int = MAX_VALUES) -> Any:
    """The value of a JSON text, of at most 50 levels and so many values. Raises JsonError."""
    if _count_values(text) > most_values and _count_values(_STRING.sub("", text)) > most_values:
        raise JsonError(f"more than {most_values:,} values, which are the most")
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise _too_deep() from None
    except JsonError:
        raise
    except ValueError as error:
        raise JsonError(f"not JSON ({error})") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_too_deep(value):
        raise _too_deep()
    return value


def _count_values(text: str) -> int:
    """The number of values in a JSON text if its strings have none of these characters; else a larger one."""
    return sum(map(text.count, "[{,"))


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise JsonError(f"a number of {len(digits)} digits; {_MAX_DIGITS} are the most")
    return int(digits)


_DECODER = json.JSONDecoder(parse_int=_integer)


def _too_deep() -> JsonError:
    return JsonError(f"nested more than {MAX_DEPTH} levels deep")


def _is_too_deep(value: Any) -> bool:
    below = next(itertools.islice(_levels(value), MAX_DEPTH, None), [])
    return any(isinstance(one, (dict, list)) for one in below)


def _levels(value: Any) -> Iterator[list[Any]]:
    """The values and keys of each level of a JSON value, from the outermost inwards."""
    level = [value]
    while level:
        yield level
        level = [inner for one in level if isinstance(one, (dict, list))
                 for inner in ((*one, *one.values()) if isinstance(one, dict) else one)]


def _is_unicode(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode(errors="surrogateescape"))  # with bytes of file names, as os.fsdecode
    except UnicodeEncodeError:
        return False


def check_type(value: Any, hint: Any, name: str = "") -> None:
    """Raises JsonError, naming the field, unless a value from JSON is of a type. `name` is that of the value."""
    origin, fields = typing.get_origin(hint) or hint, typing.is_typeddict(hint)
    if len(kinds_of(hint)) > 1:
        _check_any(value, hint, name)
        return
    if not (isinstance(value, dict) if fields else is_of_type(origin, value)):
        raise JsonError(_mismatch(value, hint, name))
    if fields:
        for field, kind in _hints(hint).items():
            if field in value:
                check_type(value[field], kind, qualified(name, field))
            elif field in hint.__required_keys__:
                raise JsonError(f"{qualified(name, field)} is missing")
    elif origin is dict:
        for field, inner in value.items():
            check_type(inner, typing.get_args(hint)[1], qualified(name, field))
    elif origin is list:
        for number, inner in enumerate(value):
            check_type(inner, typing.get_args(hint)[0], f"{name}[{number}]")


def _check_any(value: Any, hint: Any, name: str) -> None:
    """`check_type` against a union: the error is that of its only type besides None, or of none of them."""
    kinds = [kind for kind in kinds_of(hint) if kind is not types.NoneType]
    if value is None and len(kinds) < len(kinds_of(hint)):
        return
    for kind in kinds:
        try:
            check_type(value, kind, name)
            return
        except JsonError:
            if len(kinds) == 1:
                raise
    raise JsonError(_mismatch(value, hint, name))


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _mismatch(value: Any, hint: Any, name: str) -> str:
    words = " or ".join(_WORDS[dict if typing.is_typeddict(kind) else typing.get_origin(kind) or kind]
                        for kind in kinds_of(hint))
    if name:
        return f"{name} is {shown(value)}; {words} is needed"
    return f"not a JSON object, but {shown(value)}" if words == "an object" else f"it is {shown(value)}, not {words}"


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80


def shown(value: Any) -> str:
    """A value from a file for a message, abbreviated."""
    return _REPR.repr(value)
