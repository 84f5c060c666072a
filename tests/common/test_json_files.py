"""Small JSON files: types, limits, and messages that name the file and the field."""
import json
import os
from typing import Any, NotRequired, TypedDict

import pytest

from spanbert_jax.common import json_files
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.json_files import JsonError, decode_json, parse_json, read_json


class Inner(TypedDict):
    at: float


class Outer(TypedDict):
    name: str
    count: NotRequired[int | None]
    inner: NotRequired[dict[str, Inner]]
    names: NotRequired[list[str]]
    either: NotRequired[int | Inner]


SOUND = {"name": "a", "count": None, "inner": {"1": {"at": 3, "more": []}}, "names": ["b"], "either": {"at": 0.5},
         "unknown": {"deep": [None, True]}}


def test_sound_values_are_returned_as_they_are():
    assert parse_json(json.dumps(SOUND).encode(), Outer) == SOUND
    assert parse_json(b'{"name": "\\ud83d\\ude00 \xc3\xa9", "either": 18446744073709551615}', Outer) == {
        "name": "\U0001f600 \u00e9", "either": 2**64 - 1}
    assert parse_json(b'{"model_max_length": 1000000000000000019884624838656}', dict[str, int]) == {
        "model_max_length": int(1e30)}
    assert parse_json(b"[" * 49 + b"]" * 49, list[Any])


@pytest.mark.parametrize("change, message", [
    ({"name": 3}, "name is 3; a text is needed"),
    ({"count": 1.5}, "count is 1.5; a whole number is needed"),
    ({"count": True}, "count is True; a whole number is needed"),
    ({"inner": {"1": {"at": "x"}}}, "inner.1.at is 'x'; a number is needed"),
    ({"inner": {"1": {}}}, "inner.1.at is missing"),
    ({"inner": [1]}, "inner is [1]; an object is needed"),
    ({"names": ["a", None]}, "names[1] is None; a text is needed"),
    ({"names": "abc"}, "names is 'abc'; a list is needed"),
    ({"either": []}, "either is []; a whole number or an object is needed"),
    ({"either": {"at": []}}, "either is {'at': []}; a whole number or an object is needed")])
def test_a_field_of_another_type_is_named(change, message):
    with pytest.raises(JsonError) as caught:
        parse_json(json.dumps(SOUND | change).encode(), Outer)
    assert str(caught.value) == message


@pytest.mark.parametrize("content, message", [
    (b"", "not JSON (Expecting value: line 1 column 1 (char 0))"), (b'{"a": 1', "not JSON"), (b"\xff{}", "not JSON"),
    (b"[]", "not a JSON object, but []"), (b"3", "not a JSON object, but 3"), (b"null", "not a JSON object, but None"),
    (b'{"a":' * 60 + b"1" + b"}" * 60, "nested more than 50 levels deep"),
    (b'{"a":' * 100_000, "nested more than 50 levels deep"), (b"[" * 51 + b"]" * 51, "nested more than 50 levels deep"),
    (b'{"a": 1' + b"0" * 100 + b"}", "a number of 101 digits; 100 are the most"),
    (b'{"a": "\\ud800"}', "half a surrogate pair in a text"), (b'{"\\udc00": 1}', "half a surrogate pair in a text"),
    (b'{"a": [' + b"0," * 2_000_001 + b"0]}", "more than 2,000,000 values")])
def test_other_contents_are_refused(content, message):
    with pytest.raises(JsonError) as caught:
        parse_json(content, dict[str, Any])
    assert str(caught.value).startswith(message)


def test_messages_name_the_file_and_shorten_values(tmp_path, monkeypatch):
    file = tmp_path / "a\x1b[31m.json"
    file.write_text(json.dumps({"name": list(range(10_000))}))
    with pytest.raises(UserError) as caught:
        read_json(file, Outer, "write it again")
    assert str(caught.value) == (f"{tmp_path}/a\\x1b[31m.json: name is [0, 1, 2, 3, 4, 5, ...]; a text is needed; "
                                 "write it again")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none", Outer)
    with pytest.raises(UserError, match="cannot be read .Not a directory.; fetch it again"):
        read_json(file / "config.json", Outer)
    monkeypatch.setattr(json_files, "MAX_BYTES", 1 << 20)
    file.write_bytes(b" " * (1 << 20) + b"{}")
    with pytest.raises(UserError, match="more than 1 MiB, which is the most"):
        read_json(file, Outer)


def test_pipes_and_directories_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("pipe", "not a regular file"), ("", "Is a directory")):
        with pytest.raises(UserError, match=reason):
            read_json(tmp_path / name, Outer)


def test_commas_and_brackets_in_texts_are_no_values():
    text = ',[{\\"' * 1_000_000
    assert decode_json(f'["{text}", 1]') == [text.replace("\\", ""), 1]
