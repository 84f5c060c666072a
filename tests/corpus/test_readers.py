"""Readers: each format, each malformed input mended and counted, each error in one line."""
import codecs
import gzip
import json

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.corpus import readers
from spanbert_jax.corpus.documents import Document, divide
from spanbert_jax.corpus.readers import Fields, SourceFile, read_documents, resolve


def read(path, format, fields=Fields()):
    faults = DataIssues()
    return list(read_documents(SourceFile(str(path), format), fields, faults)), faults


def write(tmp_path, data, name="file.txt"):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_plain_formats(tmp_path):
    path = write(tmp_path, "One.\nTwo.\n\n  \nThree.\n\n\nFour.")
    for format, expected in [("documents", ["One.\nTwo.\n\n  \nThree.\n\n\nFour."]),
                             ("blank-lines", ["One.\nTwo.", "Three.", "Four."]),
                             ("sentences", ["One.\nTwo.", "Three.", "Four."])]:
        found, faults = read(path, format)
        assert [document.text for document in found] == expected
        assert {document.sentence_lines for document in found} == {format == "sentences"}
        assert faults.counts == {"files without a last newline": 1}
    assert [document.place(0) for document in found] == [f"{path}:1", f"{path}:5", f"{path}:8"]
    assert found[0].place(6) == f"{path}:2"


def test_blank_lines_across_blocks_and_over_long_documents(tmp_path, monkeypatch):
    lines = [f"line {i} of a text" + "\n" * (1 + (i % 7 == 0)) for i in range(300)]
    path = write(tmp_path, "".join(lines))
    whole, _ = read(path, "blank-lines")
    for limit in (40, 57, 200, 1000):
        monkeypatch.setattr(readers, "MAX_DOCUMENT_CHARACTERS", limit)
        found, faults = read(path, "blank-lines")
        assert "\n".join(document.text for document in found).split() == "".join(lines).split()
        if limit >= 200:  # longer than any document
            assert found == whole and not faults.counts
        assert all(len(document.text) <= 2 * limit for document in found)
        assert all(document.text.strip().startswith(lines[0][:4]) for document in found)  # cut at line ends


@pytest.mark.parametrize("text", ["é" * 1000, "word " * 500, "日本" * 400, "a\n" * 700])
def test_one_very_long_line_is_cut_without_loss(text, tmp_path, monkeypatch):
    for limit in (64, 65, 66, 67):
        monkeypatch.setattr(readers, "MAX_DOCUMENT_CHARACTERS", limit)
        found, faults = read(write(tmp_path, text), "documents")
        assert "".join(document.text for document in found) == text
        assert faults.counts["long documents divided"] == 1
        assert "invalid UTF-8 sequences replaced" not in faults.counts


def test_malformed_text_is_mended_and_counted(tmp_path):
    data = codecs.BOM_UTF8 + b"caf\xc3\xa9\r\nbad \xff\xfe byte \xef\xbf\xbd\rend"
    path = write(tmp_path, data)
    (document,), faults = read(path, "documents")
    assert document.text == "café\nbad \ufffd\ufffd byte \ufffd\nend"
    assert faults.counts == {"byte-order marks removed": 1, "invalid UTF-8 sequences replaced": 2,
                             "files with carriage returns": 1, "files without a last newline": 1}
    assert faults.places["invalid UTF-8 sequences replaced"] == [str(path)]
    for format in ("documents", "blank-lines", "sentences", "jsonl"):
        assert read(write(tmp_path, b""), format)[1].counts == {"empty files": 1}
    with pytest.raises(UserError, match="looks like UTF-16"):
        read(write(tmp_path, "text".encode("utf-16")), "documents")


def test_gzip_is_seen_by_content(tmp_path):
    path = write(tmp_path, gzip.compress(codecs.BOM_UTF8 + b"A text.\n"), "named.txt")
    found, faults = read(path, "documents")
    assert [document.text for document in found] == ["A text.\n"] and faults.counts == {"byte-order marks removed": 1}
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(UserError, match="broken gzip"):
        read(path, "documents")


def test_jsonl(tmp_path):
    records = [{"body": "Ann met Bob.", "units": [[8, 11, "PER"], [0, 3], [0, 2]]}, {"body": "\ud800x"}]
    path = write(tmp_path, "\n".join(map(json.dumps, records)) + "\n\n")
    found, faults = read(path, "jsonl", Fields("body", "units"))
    assert found == [Document("Ann met Bob.", str(path), 1, ((0, 3), (8, 11))), Document("\ufffdx", str(path), 2, ())]
    assert found[0].place(5) == f"{path}:1"
    assert list(faults.counts) == ["half characters (lone surrogates) replaced"]


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
        read(path, "jsonl", Fields("text", "units"))
    assert f"{path}:2: " in str(caught.value) and "\n" not in str(caught.value)


def test_divided_documents_keep_their_annotations(monkeypatch):
    text = "Ann met Bob. Cid met Dan."
    units = ((0, 3), (8, 11), (13, 16), (21, 24))
    parts = list(divide(Document(text, "f", 3, units), DataIssues(), limit=14))
    assert "".join(part.text for part in parts) == text
    assert [part.text[a:b] for part in parts for a, b in part.units] == ["Ann", "Bob", "Cid", "Dan"]
    lines = list(divide(Document("one\ntwo\nthree\n", "f", 3), DataIssues(), limit=8))
    assert [(part.text, part.line) for part in lines] == [("one\ntwo\n", 3), ("three\n", 5)]


def test_resolve(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("d/b.txt", "d/a.jsonl.gz", "d/.hidden", "d/sub/c.json", "d/.git/x"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    expected = [("d/a.jsonl.gz", "jsonl"), ("d/b.txt", "documents"), ("d/sub/c.json", "jsonl")]
    assert [(file.path, file.format) for file in resolve(["d"], "auto")] == expected
    assert [(file.path, file.format) for file in resolve(["d/*.txt", "d/b.txt"], "sentences")] == [
        ("d/b.txt", "sentences")] * 2
    assert resolve(["tfds:wiki/en:1.0.0"], "auto") == [SourceFile("wiki/en:1.0.0", "tfds", "train")]
    assert resolve(["tfds:wiki:test[:10%]"], "auto") == [SourceFile("wiki", "tfds", "test[:10%]")]
    assert resolve(["python"], "auto", tmp_path / "p")[0].path == str(tmp_path / "p")
    for sources, format, message in [(["none*"], "auto", "no such file"), ([], "auto", "no source"),
                                     (["d"], "csv", "must be one of auto, documents")]:
        with pytest.raises(UserError, match=message):
            resolve(sources, format)


