"""Corpus formats: each format, malformed input that is repaired and counted, and one-line errors."""
import codecs
import gzip
import json

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.corpus.documents import Document, split_document
from spanbert_jax.corpus.sources import (
    FORMATS,
    CorpusFormat,
    FieldNames,
    SourceFile,
    blank_lines,
    file_formats,
    files,
    read_documents,
    resolve_sources,
)


def read(path, format, *names):
    issues = DataIssues()
    return list(read_documents(SourceFile(str(path), format), FieldNames(*names), issues)), issues


def write(tmp_path, data, name="file.txt"):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def limit_document_size(monkeypatch, limit):
    for module in (files, blank_lines):
        monkeypatch.setattr(module, "MAX_DOCUMENT_CHARACTERS", limit)


def test_plain_text_formats(tmp_path):
    path = write(tmp_path, "One.\nTwo.\n\n  \nThree.\n\n\nFour.")
    for format, expected in [("documents", ["One.\nTwo.\n\n  \nThree.\n\n\nFour."]),
                             ("blank-lines", ["One.\nTwo.", "Three.", "Four."]),
                             ("sentences", ["One.\nTwo.", "Three.", "Four."])]:
        found, issues = read(path, format)
        assert [document.text for document in found] == expected
        assert {document.sentence_lines for document in found} == {format == "sentences"}
        assert issues.counts == {"files without a last newline": 1}
    assert [document.place(0) for document in found] == [f"{path}:1", f"{path}:5", f"{path}:8"]
    assert found[0].place(6) == f"{path}:2"


def test_blank_lines_across_blocks_and_overlong_documents(tmp_path, monkeypatch):
    lines = [f"line {i} of a text" + "\n" * (1 + (i % 7 == 0)) for i in range(300)]
    path = write(tmp_path, "".join(lines))
    whole, _ = read(path, "blank-lines")
    for limit in (40, 57, 200, 1000):
        limit_document_size(monkeypatch, limit)
        found, issues = read(path, "blank-lines")
        assert "\n".join(document.text for document in found).split() == "".join(lines).split()
        if limit >= 200:  # longer than any document
            assert found == whole and not issues.counts
        assert all(len(document.text) <= 2 * limit for document in found)
        assert all(document.text.strip().startswith(lines[0][:4]) for document in found)  # split at line ends


@pytest.mark.parametrize("text", ["é" * 1000, "word " * 500, "日本" * 400, "a\n" * 700])
def test_a_very_long_line_is_split_without_loss(text, tmp_path, monkeypatch):
    for limit in (64, 65, 66, 67):
        limit_document_size(monkeypatch, limit)
        found, issues = read(write(tmp_path, text), "documents")
        assert "".join(document.text for document in found) == text
        assert issues.counts["long documents divided"] == 1
        assert "invalid UTF-8 sequences replaced" not in issues.counts


def test_malformed_text_is_repaired_and_counted(tmp_path):
    data = codecs.BOM_UTF8 + b"caf\xc3\xa9\r\nbad \xff\xfe byte \xef\xbf\xbd\rend"
    path = write(tmp_path, data)
    (document,), issues = read(path, "documents")
    assert document.text == "café\nbad \ufffd\ufffd byte \ufffd\nend"
    assert issues.counts == {"byte-order marks removed": 1, "invalid UTF-8 sequences replaced": 2,
                             "files with carriage returns": 1, "files without a last newline": 1}
    assert issues.places["invalid UTF-8 sequences replaced"] == [str(path)]
    for format in ("documents", "blank-lines", "sentences", "jsonl"):
        assert read(write(tmp_path, b""), format)[1].counts == {"empty files": 1}
    with pytest.raises(UserError, match="looks like UTF-16"):
        read(write(tmp_path, "text".encode("utf-16")), "documents")


def test_gzip_is_detected_by_content(tmp_path):
    path = write(tmp_path, gzip.compress(codecs.BOM_UTF8 + b"A text.\n"), "named.txt")
    found, issues = read(path, "documents")
    assert [document.text for document in found] == ["A text.\n"] and issues.counts == {"byte-order marks removed": 1}
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(UserError, match="broken gzip"):
        read(path, "documents")


def test_json_lines(tmp_path):
    records = [{"body": "Ann met Bob.", "units": [[8, 11, "PER"], [0, 3], [0, 2]]}, {"body": "\ud800x"}]
    path = write(tmp_path, "\n".join(map(json.dumps, records)) + "\n\n")
    found, issues = read(path, "jsonl", "body", "units")
    assert found == [Document("Ann met Bob.", str(path), 1, ((0, 3), (8, 11))), Document("\ufffdx", str(path), 2, ())]
    assert found[0].place(5) == f"{path}:1"
    assert list(issues.counts) == ["half characters (lone surrogates) replaced"]


@pytest.mark.parametrize("line, message", [
    ('{"text": "a"', "not a JSON line"), ("[1]", "a JSON list, not an object"),
    ('{"body": "a", "id": 1}', r"field 'text' is missing \(fields here: body, id\)"),
    ('{"text": 3}', "field 'text' is not a text"),
    ('{"text": "abc", "units": [[1, 9]]}', r"field 'units' has \[1, 9\] outside the text of 3 characters"),
    ('{"text": "abc", "units": [[2, 1]]}', r"\[2, 1\]"), ('{"text": "abc", "units": 7}', "must be a list"),
    ('{"text": "abc", "units": [["a", "b"]]}', "must be a list"), ('{"text": "abc", "units": null}', "must be a list"),
])
def test_bad_json_lines_name_file_line_and_field(line, message, tmp_path):
    path = write(tmp_path, '{"text": "fine"}\n' + line + "\n")
    with pytest.raises(UserError, match=message) as caught:
        read(path, "jsonl", "text", "units")
    assert f"{path}:2: " in str(caught.value) and "\n" not in str(caught.value)


def test_split_documents_keep_their_annotations(monkeypatch):
    text = "Ann met Bob. Cid met Dan."
    units = ((0, 3), (8, 11), (13, 16), (21, 24))
    parts = list(split_document(Document(text, "f", 3, units), DataIssues(), limit=14))
    assert "".join(part.text for part in parts) == text
    assert [part.text[a:b] for part in parts for a, b in part.units] == ["Ann", "Bob", "Cid", "Dan"]
    lines = list(split_document(Document("one\ntwo\nthree\n", "f", 3), DataIssues(), limit=8))
    assert [(part.text, part.line) for part in lines] == [("one\ntwo\n", 3), ("three\n", 5)]


def test_resolve_sources(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("d/b.txt", "d/a.jsonl.gz", "d/.hidden", "d/sub/c.json", "d/.git/x"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    expected = [("d/a.jsonl.gz", "jsonl"), ("d/b.txt", "documents"), ("d/sub/c.json", "jsonl")]
    assert [(file.path, file.format) for file in resolve_sources(["d"], "auto")] == expected
    assert [(file.path, file.format) for file in resolve_sources(["d/*.txt", "d/b.txt"], "sentences")] == [
        ("d/b.txt", "sentences")] * 2
    assert resolve_sources(["tfds:wiki/en:1.0.0"], "auto") == [SourceFile("wiki/en:1.0.0", "tfds", "train")]
    assert resolve_sources(["tfds:wiki:test[:10%]"], "auto") == [SourceFile("wiki", "tfds", "test[:10%]")]
    assert resolve_sources(["python"], "auto", tmp_path / "p") == [
        SourceFile(str(tmp_path / "p" / "python.jsonl.gz"), "jsonl", name="python")]
    for sources, format, message in [(["none*"], "auto", "no such file"), ([], "auto", "no source"),
                                     (["d"], "csv", "must be one of auto, documents")]:
        with pytest.raises(UserError, match=message):
            resolve_sources(sources, format)


def test_a_new_format_is_one_registered_name(tmp_path, monkeypatch):
    def read(file, fields, issues):
        with open(file.path) as lines:
            yield from (Document(line, file.path, number) for number, line in enumerate(lines, 1))

    monkeypatch.setitem(FORMATS._registered, "lines", CorpusFormat(read, (".lines",)))
    path = write(tmp_path, "One.\nTwo.\n", "a.lines")
    assert file_formats()[-1] == "lines"
    for format in ("auto", "lines"):
        (file,) = resolve_sources([str(path)], format)
        assert [document.text for document in read_documents(file, FieldNames(), DataIssues())] == ["One.\n", "Two.\n"]
