"""Labels of classification and regression examples in tables and JSON."""
from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from spanbert_jax.common.errors import UserError


class LabelReader:
    """Reads the labels of a file, which must all be written in the same way."""

    def __init__(self, column: str, regression: bool, allowed: Sequence[str] | None):
        """Reads from a column.

        Args:
          column: name of the column.
          regression: labels are numbers.
          allowed: all class names; None if any name is allowed.
        """
        self._column, self._regression, self._allowed = column, regression, allowed
        self._kind, self._first = "", ""

    def __call__(self, record: Mapping[str, Any], location: str, id: str) -> str | float:
        """The label of a record: a class name or a number.

        Raises:
          UserError: the label is missing or wrong.
        """
        value, place = record.get(self._column), f"{location}: id {id!r}"
        if value is None or (isinstance(value, str) and not value.strip()):
            raise UserError(f"{place} has no label: column {self._column!r} is "
                            f"{'empty' if self._column in record else 'missing'}; fill it in, or name "
                            "the right column in config.task.label")
        kind = _kind(value)
        if kind != self._kind and self._kind:
            raise UserError(f"{place}: label {_short(value)} is a {kind}, but the label at {self._first} is a "
                            f"{self._kind}; write all labels of a file in the same way")
        self._kind, self._first = kind, self._first or location
        return self._number(value, place) if self._regression else self._class(value, place)

    def _number(self, value: Any, place: str) -> float:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"{place}: label {_short(value)} is not a number, as config.task.regression requires")
        return number

    def _class(self, value: Any, place: str) -> str:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, (str, int)):
            raise UserError(f"{place}: label {_short(value)} is not the name or number of a class; write a text or an "
                            "integer, or set config.task.regression")
        name = value if isinstance(value, str) else json.dumps(value)
        if self._allowed is not None and name not in self._allowed:
            raise UserError(f"{place}: label {_short(name)} in column {self._column!r}: allowed are "
                            f"{', '.join(self._allowed)}")
        return name


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, (int, float)) else "text" if isinstance(value, str) else type(value).__name__


def _short(value: Any) -> str:
    return repr(value)[:80]
