"""Documents and summaries: formats, sentence offsets, what is left out, one-line errors."""
import gzip
import json

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files.summaries import Document, parse_document, read_documents
from tests.paths import DATA, needs_data


def read(path, content, with_labels=True, source="document", target="summary", id="", group=""):
    """Documents of a file with given content, and the issues."""
    issues = DataIssues()
    path.write_text(content, encoding="utf-8", newline="")
    return list(read_documents(str(path), source, target, id, group, issues, with_labels)), issues


def json_lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.mark.parametrize("name, content, first", [
    ("a.csv", 'document,summary,key,by\n"One, two.\nThree.",Short.,k1,x\nFour.,"A, b",7,y\n', 2),
    ("a.jsonl", json_lines({"document": "One, two.\nThree.", "summary": "Short.", "key": "k1", "by": "x"},
                           {"document": "Four.", "summary": ["A, b"], "key": 7, "by": "y", "more": [1]}), 1),
    ("a.json", json.dumps([{"document": "One, two.\nThree.", "summary": ["Short."], "key": "k1", "by": "x"},
                           {"document": "Four.", "summary": "A, b", "key": 7, "by": "y"}]), 1)])
def test_formats(name, content, first, tmp_path):
    path = tmp_path / name
    documents, issues = read(path, content, id="key", group="by")
    second = 4 if name == "a.csv" else first + 1  # after a field of two lines
    assert documents == [
        Document("k1", f"{path}:{first}", "x", None, "One, two.\nThree.", ("Short.",)),
        Document("7", f"{path}:{second}", "y", None, "Four.", ("A, b",))]
    assert not issues.counts
    assert documents[0].spans == [(0, 9), (10, 16)]


def test_tabs_and_names_of_columns(tmp_path):
    path = tmp_path / "a.tsv"
    documents, _ = read(path, 'text\ttitle\n"a. b\tc\n', source="text", target="title")
    assert documents == [Document("2", f"{path}:2", f"{path}:2", None, '"a. b', ("c",))]


def test_sentences_and_several_summaries(tmp_path):
    sentences = ["A first one.", " and\na second ", "", "Dr. No."]
    (document,), issues = read(tmp_path / "a.jsonl", json_lines({"source": sentences, "target": ["x", "y z"]}),
                               source="source", target="target")
    assert document.sentences == tuple(sentences) and document.text == " ".join(sentences)
    assert document.summaries == ("x", "y z") and not issues.counts
    assert [document.text[start:end] for start, end in document.spans] == sentences


def test_empty_documents_are_left_out_with_labels_and_counted(tmp_path):
    records = [{"document": "A.", "summary": "a"}, {"document": " ", "summary": "b"}, {"document": [], "summary": "c"},
               {"document": ["", ""], "summary": ""}, {"document": "E.", "summary": " "},
               {"document": "F.", "summary": []}, {"document": "G.", "summary": ["", "g", " "]}]
    path = tmp_path / "a.jsonl"
    documents, issues = read(path, json_lines(*records))
    assert [(document.id, document.summaries) for document in documents] == [("1", ("a",)), ("7", ("g",))]
    assert issues.counts == {"documents without text, left out": 3, "documents without a summary, left out": 2,
                             "empty summaries of documents with several, left out": 2}
    assert issues.places["documents without a summary, left out"] == [f"{path}:5 (id '5')", f"{path}:6 (id '6')"]


def test_files_without_labels_keep_every_document_and_ignore_summaries(tmp_path):
    records = [{"document": "A."}, {"document": "", "summary": 5}, {"document": [], "summary": "c"}, {"document": "D."}]
    documents, issues = read(tmp_path / "a.jsonl", json_lines(*({**record, "id": "x"} for record in records)),
                             with_labels=False, id="id")
    assert [document.text for document in documents] == ["A.", "", "", "D."]
    assert [document.spans for document in documents] == [[(0, 2)], [], [], [(0, 2)]]
    assert {document.summaries for document in documents} == {()} and {document.id for document in documents} == {"x"}
    assert issues.counts == {"documents without text": 2}


@pytest.mark.parametrize("name, content, settings, message", [
    ("a.csv", "text,summary\na,b\n", {}, ":2: id '2': no field 'document'; there are 'text', 'summary'"),
    ("a.jsonl", json_lines({"document": "a"}), {}, ":1: id '1': no field 'summary'; there are 'document'"),
    ("a.jsonl", json_lines({"document": "a", "summary": None}), {}, ":1: id '1': field 'summary' is None, which is not "
     "of type str or list"),
    ("a.jsonl", json_lines({"document": {"text": "a"}, "summary": "b"}), {}, ":1: id '1': field 'document' is {"),
    ("a.jsonl", json_lines({"document": ["a", 5], "summary": "b", "k": "x"}), {"id": "k"},
     ":1: id 'x': entry 2 of the list in field 'document' is 5; give a text, or a list of texts"),
    ("a.jsonl", json_lines({"document": "a", "summary": ["b", ["c"]]}), {},
     r":1: id '1': entry 2 of the list in field 'summary' is \['c'\]"),
    ("a.jsonl", json_lines({"document": "a", "summary": "b"}), {"group": "by"}, ":1: no field 'by'"),
    ("a.jsonl", json_lines({"document": "a", "summary": "b", "k": 1.5}), {"id": "k"}, ":1: field 'k' is 1.5"),
    ("a.csv", "document,summary,k\na,b,1\nc,d,2\ne,f,1\n", {"id": "k"}, ":4: id '1' occurs also at .*a.csv:2")])
def test_mistakes_in_files(name, content, settings, message, tmp_path):
    with pytest.raises(UserError, match=f"{name}{message}") as raised:
        read(tmp_path / name, content, **settings)
    assert "\n" not in str(raised.value)


def test_documents_from_python():
    issues = DataIssues()
    assert parse_document("One. Two.", "text", "input 1", issues) == Document("input 1", "input 1", "input 1", None,
                                                                           "One. Two.", ())
    sentences = parse_document({"text": ["One.", "Two."], "more": 1}, "text", "input 2", issues)
    assert (sentences.sentences, sentences.text) == (("One.", "Two."), "One. Two.") and not issues.counts
    assert parse_document("", "text", "input 3", issues).spans == []
    assert issues.places == {"documents without text": ["input 3"]}
    for inputs, message in (({"document": "a"}, "no field 'text'"), ({"text": 5}, "field 'text' is 5"),
                            ({"text": ["a", None]}, "entry 2 of the list in field 'text' is None")):
        with pytest.raises(UserError, match=f"^input 4: {message}"):
            parse_document(inputs, "text", "input 4", issues)


@needs_data
def test_real_documents():
    issues = DataIssues()
    paper_ids, found = set(), 0
    path = DATA / "scitldr" / "SciTLDR-A-dev.jsonl"
    for document, line in zip(read_documents(str(path), "source", "target", "paper_id", "", issues), path.open()):
        record = json.loads(line)
        assert [document.text[start:end] for start, end in document.spans] == record["source"]
        assert list(document.summaries) == record["target"]
        paper_ids.add(document.id)
        found += 1
    assert found == len(paper_ids) == 619
    texts = 0
    path = DATA / "debian-descriptions.en.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for document, line in zip(read_documents(str(path), "document", "summary", "", "", issues), lines):
            if texts < 500:
                record = json.loads(line)
                spans = document.spans
                assert (document.text, document.summaries) == (record["document"], (record["summary"],))
                inside = "".join(document.text[start:end] for start, end in spans)
                assert "".join(inside.split()) == "".join(document.text.split()) and spans == sorted(spans)
            texts += 1
    assert texts == 40_460 and not issues.counts
