"""Typed settings: conversion from and to dictionaries, types, ranges and choices, and messages."""
from __future__ import annotations

import dataclasses
from typing import Any, Optional

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.settings import Settings, allowed_values, from_dict, qualified, setting, to_dict


@dataclasses.dataclass(frozen=True)
class Inner(Settings):
    rate: float = setting(0.5, "A rate.", minimum=0, below=1)
    names: tuple[str, ...] = setting((), "Names.")
    pairs: tuple[tuple[str, Any], ...] = setting((), "Pairs.")


@dataclasses.dataclass(frozen=True)
class Outer(Settings):
    count: int = setting(3, "A count.", above=0, maximum=9)
    kind: str = setting("a", "A kind.", choices=lambda: ("a", "b"))
    flag: bool = setting(False, "A flag.")
    optional: Optional[str] = setting(None, "A text or None.")  # noqa: UP045 (a plugin may write it so)
    inner: Inner = setting(Inner(), "A section.")


def test_dictionaries_are_read_and_written():
    values = {"count": 4, "kind": "b", "flag": True, "optional": "x",
              "inner": {"rate": 0.25, "names": ("p", "q"), "pairs": (("r", 1),)}}
    settings = from_dict(Outer, values)
    assert settings == Outer(4, "b", True, "x", Inner(0.25, ("p", "q"), (("r", 1),)))
    assert to_dict(settings) == values


def test_missing_fields_have_their_defaults():
    assert from_dict(Outer, {"inner": {"names": ["p"]}}) == Outer(inner=Inner(names=("p",)))


def test_missing_fields_of_a_section_have_the_defaults_of_that_section():
    @dataclasses.dataclass(frozen=True)
    class Other(Outer):
        inner: Inner = setting(Inner(0.25, ("p",)), "A section with other defaults.")

    assert from_dict(Other, {"inner": {"names": ["q"]}}).inner == Inner(0.25, ("q",))


def test_integers_become_floats_and_lists_tuples_at_any_depth():
    inner = from_dict(Inner, {"rate": 0, "names": ["c"], "pairs": [["a", ["b"]]]})
    assert isinstance(inner.rate, float) and inner.names == ("c",) and inner.pairs == (("a", ("b",)),)


@pytest.mark.parametrize("values,message", [
    ({"cuont": 1}, "config has no field 'cuont'; did you mean 'count'? it has count, kind, flag, optional, inner"),
    ({"inner": {"rats": 1.0}}, "config.inner has no field 'rats'; did you mean 'rate'? it has rate, names, "
     "pairs"),
    ({"count": "4"}, "config.count='4': must be of type int"),
    ({"count": True}, "config.count=True: must be of type int"),
    ({"count": 4.0}, "config.count=4.0: must be of type int"),
    ({"flag": 1}, "config.flag=1: must be of type bool"),
    ({"optional": 5}, "config.optional=5: must be of type str or None"),
    ({"inner": {"names": "pq"}}, "config.inner.names='pq': must be of type tuple[str, ...]"),
    ({"inner": {"names": ["p", 1]}}, "config.inner.names=('p', 1): must be of type tuple[str, ...]"),
    ({"inner": {"pairs": [["p"]]}}, "config.inner.pairs=(('p',),): must be of type tuple[tuple[str, Any], ...]"),
    ({"inner": {"pairs": ["p"]}}, "config.inner.pairs=('p',): must be of type tuple[tuple[str, Any], ...]"),
    ([], "config=[]: is a section; set its fields"), (None, "config=None: is a section; set its fields"),
    ({"inner": 5}, "config.inner=5: is a section; set its fields")])
def test_unknown_fields_and_wrong_types_are_refused(values, message):
    with pytest.raises(UserError) as error:
        from_dict(Outer, values)
    assert str(error.value) == message


@pytest.mark.parametrize("settings,message", [
    (Outer(count=0), "config.count=0: must be above 0 and at most 9"),
    (Outer(count=10), "config.count=10: must be above"),
    (Outer(kind="c"), "config.kind='c': allowed are 'a', 'b'"),
    (Outer(inner=Inner(rate=1.0)), "config.inner.rate=1.0: must be at least 0 and below 1"),
    (Outer(inner=Inner(rate=-0.1)), "config.inner.rate=-0.1: must be at least 0 and below 1"),
    (Outer(inner=Inner(rate=float("nan"))), "config.inner.rate=nan: must be at least 0 and below 1")])
def test_values_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        settings.validate("config")


@pytest.mark.parametrize("settings", [Outer(count=1), Outer(count=9), Outer(kind="b"), Outer(inner=Inner(rate=0.0))])
def test_ends_of_ranges_and_choices_are_allowed(settings):
    settings.validate("config")


def test_allowed_values_in_words():
    fields = {field.name: field for field in dataclasses.fields(Outer)}
    assert allowed_values(fields["count"]) == "must be above 0 and at most 9"
    assert allowed_values(fields["kind"]) == "allowed are 'a', 'b'"
    assert allowed_values(fields["flag"]) == ""


def test_settings_are_frozen_and_replaced():
    changed = Outer().replace(count=5)
    assert changed.count == 5 and Outer().count == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        changed.count = 6


def test_names_without_a_path():
    assert (qualified("config.data", "length"), qualified("", "length")) == ("config.data.length", "length")
