"""Reads labels: names or numbers of classes, one or several, and numbers."""
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.json_files import JsonError, decode_json

_KINDS: dict[type, str] = {bool: "boolean", int: "number", float: "number", str: "text"}
_BOOLEANS = {"false": 0, "true": 1}  # as numbers of classes


def class_number(label: Any) -> int | None:
    """The number of a class, which may be written as 1, 1.0 or true, also as a text; None if a label is no number."""
    text = str(label).strip().lower()
    try:
        number = float(_BOOLEANS.get(text, text))
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


class LabelReader:
    """Reads the labels of a file, which must all be written in the same way."""

    def __init__(self, column: str, regression: bool = False, multi_label: bool = False,
                 allowed: Sequence[str] | None = None, unlabelled: str = ""):
        """Reads class names.

        Args:
          regression: reads numbers instead.
          multi_label: reads any number of names: a list, or a text with commas between them.
          allowed: the names; None for any. If they are numbers, 1.0 and true are read as 1.
          unlabelled: the name that stands for no label; "" if none does.
        """
        self._column, self._regression, self._multi_label = column, regression, multi_label
        self._allowed, self._unlabelled = allowed, unlabelled
        self._kind, self._first = "", ""

    def __call__(self, record: Mapping[str, Any], location: str, id: str) -> str | float | tuple[str, ...] | None:
        """The label of a record: a name, a number or the names of several classes; None for `unlabelled`.

        Raises UserError if the label is missing or wrong.
        """
        value, place = record.get(self._column), f"{location}: id {id!r}"
        if value is None or (isinstance(value, str) and not value.strip() and not self._multi_label):
            raise UserError(f"{place} has no label: column {self._column!r} is "
                            f"{'empty' if self._column in record else 'missing'}; fill it in, or name "
                            "the right column in config.task.label")
        kind = _KINDS.get(type(value), type(value).__name__)
        if kind != self._kind and self._kind:
            raise UserError(f"{place}: label {value!r:.80} is a {kind}, but the label at {self._first} is a "
                            f"{self._kind}; write all labels of a file in the same way")
        self._kind, self._first = kind, self._first or location
        if self._multi_label:
            return self._classes(value, place)
        return self._number(value, place) if self._regression else self._class(value, place)

    def _number(self, value: Any, place: str) -> float:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"{place}: label {value!r:.80} is not a number, as config.task.regression requires")
        return number

    def _classes(self, value: Any, place: str) -> tuple[str, ...] | None:
        entries = value
        if isinstance(value, str):
            try:
                is_list = value.lstrip().startswith("[")
                entries = decode_json(value) if is_list else [name.strip() for name in value.split(",")]
            except JsonError:
                raise UserError(f"{place}: label {value!r:.80} is not a list as in JSON; write one, or names with "
                                "commas between them") from None
        entries = entries if isinstance(entries, list) else [entries]
        entries = [entry.strip() if isinstance(entry, str) else entry for entry in entries]
        if len(entries) > len(set(map(str, entries))) and set(map(class_number, entries)) <= {0, 1}:
            raise UserError(f"{place}: label {value!r:.80} has a 0 or 1 for each class; list the names or numbers of "
                            "the classes that hold")
        names = [self._class(entry, place) for entry in entries if entry != ""]
        known = tuple(dict.fromkeys(name for name in names if name is not None))
        if known and None in names:
            raise UserError(f"{place}: label {value!r:.80} has {self._unlabelled}, which stands for no label "
                            "(config.task.unlabelled), next to classes; list the classes only")
        return None if None in names else known

    def _class(self, value: Any, place: str) -> str | None:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, (str, int)):
            raise UserError(f"{place}: label {value!r:.80} is not the name or number of a class; write a text or an "
                            "integer, or set config.task.regression")
        name = value if isinstance(value, str) else json.dumps(value)
        if name.strip() in (self._unlabelled, f"{self._unlabelled}.0"):  # ".0" in a table of floating-point numbers
            return None
        if self._allowed is not None and name not in self._allowed:
            if (number := str(class_number(value))) in self._allowed:
                return number
            raise UserError(f"{place}: label {name!r:.80} in column {self._column!r}: allowed are "
                            f"{', '.join(self._allowed)}")
        return name
