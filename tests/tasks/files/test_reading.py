"""Streaming readers: compared with the json module, and with malicious files."""
import bz2
import gzip
import json
import lzma

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks import make_task
from spanbert_jax.tasks.files import reading

RETURNS = "files with single carriage returns, read as line ends"
DOCUMENT = {"version": "1", "data": [{"a": 1.5, "b": [1, {"data": [2]}]}, [], {}, "text", None, [[["deep"]]]],
            "other": {"data": [3]}}


@pytest.mark.parametrize("zipped", [False, True])
def test_entries_equal_the_json_module(zipped, tmp_path):
    file = tmp_path / "file.json"
    text = json.dumps(DOCUMENT).encode()
    file.write_bytes(gzip.compress(text) if zipped else text)
    assert list(reading.json_items(str(file), "data", DataIssues())) == DOCUMENT["data"]
    file.write_text(json.dumps(DOCUMENT["data"]))
    assert list(reading.json_items(str(file), "", DataIssues())) == DOCUMENT["data"]
    file.write_text("[]")
    assert list(reading.json_items(str(file), "", DataIssues())) == []


def test_parts_have_paths_and_enclosing_values(tmp_path):
    file = tmp_path / "file.json"
    file.write_text(json.dumps({"data": [{"title": "X", "parts": [{"n": 1}, {"n": 2}]}, 5, {"parts": 7}]}))
    found = list(reading.json_parts(str(file), [("data", "*", "title"), ("data", "*", "parts", "*")], DataIssues()))
    begins, array = reading.BEGINS_OBJECT, reading.BEGINS_ARRAY
    assert found == [
        ((), begins), (("data",), array), (("data", 0), begins), (("data", 0, "title"), "X"),
        (("data", 0, "parts"), array), (("data", 0, "parts", 0), {"n": 1}), (("data", 0, "parts", 1), {"n": 2}),
        (("data", 1), 5), (("data", 2), begins), (("data", 2, "parts"), 7)]


@pytest.mark.parametrize("text,message", [
    ('{"data": [1, 2', "not JSON .*line 1 column 15"), ("", "not JSON"), ('{"data": 5}', 'not an object with an array'),
    ('{"date": []}', "not an object with an array"), ('{"data": [NaN]}', "not JSON"),
    ('{"data": ' + "[" * 100_000, "not JSON .nested more than 50 levels deep"),
    ('{"data": [' + '{"a":' * 3000, "not JSON .nested more than 50 levels deep")])
def test_other_documents_give_one_line_errors(text, message, tmp_path):
    file = tmp_path / "file.json"
    file.write_text(text)
    with pytest.raises(UserError, match=f"^{file}: .*{message}") as error:
        list(reading.json_items(str(file), "data", DataIssues()))
    assert "\n" not in str(error.value)


def test_deeply_nested_json_lines_are_rejected(tmp_path):
    file = tmp_path / "file.jsonl"
    file.write_text('{"a": 1}\n{"a": ' + "[" * 5000 + "]" * 5000 + "}\n")
    with pytest.raises(UserError, match=f"^{file}:2: not a JSON line"):
        list(reading.json_lines(str(file), DataIssues()))


@pytest.mark.parametrize("name,text", [
    ("a.csv", 'text,label\n"a, ""b""\nc",x\nd,y\n'), ("a.csv", '\ufefftext,label\r\n"a, ""b""\r\nc",x\r\nd,y\r\n'),
    ("a.csv", 'text,label\r"a, ""b""\rc",x\rd,y\r'),
    ("a.jsonl", '{"text": "a, \\"b\\"\\nc", "label": "x"}\n\n{"text": "d", "label": "y"}\n'),
    ("a.json", '[{"text": "a, \\"b\\"\\nc", "label": "x"}, {"text": "d", "label": "y"}]'),
    ("a.json", '{"text": "a, \\"b\\"\\nc", "label": "x"}\n{"text": "d", "label": "y"}\n')])
def test_all_table_formats(name, text, tmp_path):
    file = tmp_path / name
    file.write_bytes(text.encode())
    issues = DataIssues()
    rows = [row for _, row in reading.table(str(file), issues)]
    assert rows == [{"text": 'a, "b"\nc', "label": "x"}, {"text": "d", "label": "y"}]
    assert issues.counts.get(RETURNS, 0) == ("\r" in text.replace("\r\n", ""))


@pytest.mark.parametrize("text", [
    '{"text": "a", "label": "x"}\n{"text": "b, c", "label": "y"}\n', "text\tlabel\na\tx\nb, c\ty\n",
    'text,label\na,x\n"b, c",y\n'])
@pytest.mark.parametrize("compress, ending", [(bytes, ""), (gzip.compress, ".gz"), (bz2.compress, ".bz2"),
                                              (lzma.compress, ".xz")])
def test_tables_without_ending_are_told_by_their_first_line(text, compress, ending, tmp_path):
    for name in (f"table{ending}", f"table.data{ending}"):
        file = tmp_path / name
        file.write_bytes(compress(text.encode()))
        assert [row for _, row in reading.table(str(file), DataIssues())] == [
            {"text": "a", "label": "x"}, {"text": "b, c", "label": "y"}]


INPUTS = {  # records of each task, and what is read of them
    "text_classification": ({"text": "A b."}, "text"), "question_answering": ({"question": "Who?", "context": "A b."},
                                                                              "context"),
    "relation_extraction": ({"id": "1", "text": "A b.", "subject": [0, 1], "object": [2, 3]}, "text"),
    "token_classification": ({"text": "A b."}, "text"), "summarization": ({"document": "A b."}, "text"),
    "extractive_summarization": ({"document": "A b."}, "text"), "translation": ({"source": "A b."}, "source")}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("file", ["standard-input", "a.data", "a.txt", "a.json", "a.jsonl"])
def test_json_is_told_by_its_first_characters(name, file, tmp_path):
    record, field = INPUTS[name]
    path = tmp_path / file
    task, array = make_task(name, {"length": 512}), json.dumps([record, record])
    for text in (array, f"\n \n{array}", json.dumps([record, record], indent=1),
                 f"\ufeff\n{json.dumps(record)}\r\n\n{json.dumps(record)}"):
        for data in (text.encode(), gzip.compress(text.encode())):
            path.write_bytes(data)
            examples = list(task.read(str(path), DataIssues(), with_labels=False))
            assert [getattr(example, field) for example in examples] == ["A b.", "A b."]
    path.write_text(" [\n]\n")
    assert not list(task.read(str(path), DataIssues(), with_labels=False))
    for texts in (["x"], ["x", 'a "y"'], ["\\"]):
        path.write_text(json.dumps(texts))
        with pytest.raises(UserError, match=f"{file}: record 1 is .*; it must be an object"):
            list(task.read(str(path), DataIssues(), with_labels=False))
    path.write_text(json.dumps([record, "x"]))
    with pytest.raises(UserError, match=f"{file}: record 2 is 'x'; it must be an object"):
        list(task.read(str(path), DataIssues(), with_labels=False))


@pytest.mark.parametrize("name, column, settings", [
    ("text_classification", "text", {}), ("summarization", "document", {}),
    ("extractive_summarization", "document", {}), ("translation", "source", {}),
    ("text_classification", "sentence", {"glue": "sst2"})])
@pytest.mark.parametrize("file", ["a.csv", "a.tsv"])
def test_the_columns_of_a_table_without_rows_are_checked(name, column, settings, file, tmp_path):
    path, task, issues = tmp_path / file, make_task(name, settings), DataIssues()
    path.write_text("body\n")
    with pytest.raises(UserError, match=f"^{path}:1: .*no field '{column}'; there are 'body'"):
        list(task.read(str(path), DataIssues(), with_labels=False))
    path.write_text(f"{column}\n")
    assert not list(task.read(str(path), issues, with_labels=False)) and issues.counts == {"empty files": 1}


@pytest.mark.parametrize("data, message", [
    (b"PK\x03\x04\x14\0", "a zip archive"), ("天地玄黄，宇宙洪荒。".encode("gbk"), "GB18030"),
    ('{"text": "a"}\n'.encode("utf-16-le") * 9, "iconv -f UTF-16LE")])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.txt", "a"])
def test_files_that_are_not_utf8_are_refused(data, message, name, tmp_path):
    file = tmp_path / name
    file.write_bytes(data)
    for read in (reading.table, reading.lines, lambda path, issues: reading.json_items(path, "", issues)):
        with pytest.raises(UserError, match=f"^{file}: .*{message}"):
            list(read(str(file), DataIssues()))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_all_line_ends(end, tmp_path):
    file = tmp_path / "plain.en"
    file.write_bytes(f"one{end}{end}two\u2028three\x0b{end}four".encode())
    issues = DataIssues()
    assert list(reading.lines(str(file), issues)) == [(1, "one"), (2, ""), (3, "two\u2028three\x0b"), (4, "four")]
    assert issues.counts == ({RETURNS: 1} if end == "\r" else {})


@pytest.mark.parametrize("text,message", [
    ("text,text\na,b\n", ":1: two columns have the same name"), ("text,label\na\n", ":2: 1 field, but 2 columns"),
    ('text,label\n"a,b\n', ":2: unexpected end of data")])
def test_errors_in_tables_name_the_line(text, message, tmp_path):
    file = tmp_path / "a.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=f"^{file}{message}"):
        list(reading.table(str(file), DataIssues()))


def test_paths_that_are_not_files_are_rejected(tmp_path):
    for name in ("python", "tfds:wiki", str(tmp_path / "nothing*.jsonl")):
        with pytest.raises(UserError, match="contains no examples|no such file"):
            reading.resolve_files(name)
