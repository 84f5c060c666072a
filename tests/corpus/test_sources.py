"""Corpus formats: each format, malformed input that is repaired and counted, and one-line errors."""
import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import pickle
import sqlite3
import tarfile
import zipfile

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
    require_fields,
    resolve_sources,
)
from spanbert_jax.tasks.files import reading
from tests.paths import DATA, needs_data

RETURNS = "files with single carriage returns, read as line ends"


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
                             RETURNS: 1, "files without a last newline": 1}
    assert issues.places["invalid UTF-8 sequences replaced"] == [f"{path}:2"]
    for format in ("documents", "blank-lines", "sentences", "jsonl"):
        assert read(write(tmp_path, b""), format)[1].counts == {"empty files": 1}


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compression_is_detected_by_content(compress, tmp_path):
    path = write(tmp_path, compress(codecs.BOM_UTF8 + b"A text.\n"), "named.txt")
    found, issues = read(path, "documents")
    assert [document.text for document in found] == ["A text.\n"] and issues.counts == {"byte-order marks removed": 1}
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(UserError, match="broken compressed data"):
        read(path, "documents")
    assert read(write(tmp_path, compress(b"")), "documents")[1].counts == {"empty files": 1}
    with pytest.raises(UserError, match="data that is compressed twice"):
        read(write(tmp_path, compress(gzip.compress(b"A text.\n"))), "documents")


def archive(kind):
    data = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(data, "w") as file:
            file.writestr("a.txt", "A text.")
    else:
        with tarfile.open(fileobj=data, mode=kind) as file:
            file.addfile(tarfile.TarInfo("a.txt"))
    return data.getvalue()


def database():
    connection = sqlite3.connect(":memory:")
    connection.execute("create table t (text)")
    return connection.serialize()


@pytest.mark.parametrize("make, kind", [
    (lambda: archive("zip"), "a zip archive"), (lambda: archive("w"), "a tar archive"),
    (lambda: archive("w:gz"), "a tar archive"), (lambda: archive("w:xz"), "a tar archive"),
    (lambda: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG image"), (lambda: b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG image"),
    (lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "a PDF document"), (lambda: database(), "an SQLite database"),
    (lambda: b"PAR1\x15\x04\x15" + bytes(range(256)), "a Parquet file"),
    (lambda: b"\x28\xb5\x2f\xfd\x04\x00A", "zstd data, .* zstd -d"),
    (lambda: pickle.dumps([0.1 * i for i in range(99)]), "a Python pickle"),
    (lambda: b"Obj\x01\x04\x14avro.codec\x08null", "an Avro file"),
    (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer, .* git lfs pull")])
def test_files_that_are_not_text_are_refused(make, kind, tmp_path):
    path = write(tmp_path, make(), "wiki")
    for read_it in (lambda: read(path, "documents"), lambda: read(path, "jsonl"),
                    lambda: resolve_sources([str(path)], "auto")):
        with pytest.raises(UserError, match=f"^{path}: .*{kind}"):
            read_it()


@needs_data
@pytest.mark.parametrize("name, kind", [
    ("addresses.tar", "a tar archive"), ("ch-binary.html", "HTML or XML"), ("debian.parquet", "a Parquet file"),
    ("enwiki-excerpt.xml.bz2", "HTML or XML; .* WikiExtractor"), ("handbook-fr.latin1.txt", "WINDOWS-1252"),
    ("hf-arrow/train/data-00000-of-00002.arrow", "an Arrow stream"), ("mds/shard.00000.mds", "not text in UTF-8"),
    ("mds-zstd/shard.00000.mds.zstd", "zstd data"), ("novels.jsonl.zst", "zstd data"),
    ("pages.warc.gz", "a WARC archive"), ("pages.warc.wet.gz", "a WARC archive"),
    ("policy-chapters.epub", "a zip archive .*epub")])
def test_real_files_of_other_kinds_are_refused(name, kind):
    path = DATA / "formats" / name
    with pytest.raises(UserError, match=f"^{path}: .*{kind}"):
        resolve_sources([str(path)], "auto")


@needs_data
def test_a_real_table_is_read():
    path = DATA / "formats" / "paragraphs.csv"  # as a spreadsheet writes it: a byte-order mark and carriage returns
    file, = resolve_sources([str(path)], "auto")
    found, issues = read(path, file.format)
    with open(path, encoding="utf-8-sig", newline="") as table:
        assert [document.text for document in found] == [
            row["text"].replace("\r\n", "\n") for row in csv.DictReader(table)]
    assert len(found) == 32 and set(issues.counts) == {"byte-order marks removed"}


@pytest.mark.parametrize("text, encoding, named", [
    ("天地玄黄，宇宙洪荒。" * 3, "gb18030", "GB18030"), ("天地玄黃，宇宙洪荒。" * 3, "big5", "BIG5"),
    ("いろはにほへと ちりぬるを。" * 3, "shift_jis", "SHIFT_JIS"), ("나랏말싸미", "euc-kr", "EUC-KR"),
    ("Übermut tut selten gut, sagt man im späten März. " * 20, "latin-1", "WINDOWS-1252"),
    ("A text.\n" * 99, "utf-16", "iconv -f UTF-16 "), ("A text.\n" * 99, "utf-16-le", "iconv -f UTF-16LE "),
    ("A text.\n" * 99, "utf-16-be", "iconv -f UTF-16BE "), ("天地玄黄，宇宙洪荒。\n" * 9, "utf-16-le", "in UTF-8"),
    ("A text.\n" * 99, "utf-32", "iconv -f UTF-32 "), ("いろは", "iso2022_jp", "iconv -f ISO-2022-JP "),
    ("나랏말싸미", "iso2022_kr", "iconv -f ISO-2022-KR ")])
def test_other_encodings_are_refused_and_the_remedy_is_named(text, encoding, named, tmp_path):
    path = write(tmp_path, text.encode(encoding))
    with pytest.raises(UserError, match=f"^{path}: .*{named}"):
        read(path, "documents")


def test_few_invalid_bytes_in_a_large_file_are_replaced(tmp_path):
    lines = [f"Line {i} of a café.\n".encode() for i in range(5000)]
    (document,), issues = read(write(tmp_path, b"".join(lines).replace(b"Line 7", b"Line \xff")), "documents")
    assert issues.counts == {"invalid UTF-8 sequences replaced": 111}  # numbers that begin with 7
    assert document.text.count("café") == 5000


@pytest.mark.parametrize("format, begin, line, number", [
    ("documents", "", "Line %d of a café.\n", 1), ("blank-lines", "", "Line %d of a café.\n", 1),
    ("wikiextractor", "<doc id='1'>\n", "Line %d of a café.\n", 2),
    ("jsonl", "", '{"text": "Line %d of a café."}\n', 1),
    ("csv", "text\n", "Line %d of a café.\n", 2), ("csv", "text\n", "Line %d of a café.\r\n", 2)])
def test_invalid_bytes_anywhere_are_counted_or_refused(format, begin, line, number, tmp_path):
    lines = [(line % i).encode() for i in range(9000)]
    end = b"</doc>\n" if format == "wikiextractor" else b""
    for count, place in ((1, 0), (1, 4000), (20, 8000)):
        some = [data.replace(b"\xc3\xa9", b"\xe9") if place <= i < place + count else data
                for i, data in enumerate(lines)]
        path = write(tmp_path, begin.encode() + b"".join(some) + end)
        _, issues = read(path, format)
        assert issues.counts == {"invalid UTF-8 sequences replaced": count}
        assert issues.places["invalid UTF-8 sequences replaced"] == [f"{path}:{number + place}"]
    latin = begin.encode() + b"".join(lines[:7000]) + b"".join(lines[7000:]).decode().encode("latin-1") + end
    with pytest.raises(UserError, match=f":{number + 7000}: not text in UTF-8 from this line on .*WINDOWS-1252"):
        read(write(tmp_path, latin), format)


def test_files_with_single_carriage_returns_are_counted_once(tmp_path):
    for end, count in (("\n", 0), ("\r\n", 0), ("\r", 1), ("\r\r\n", 1)):
        for format, text in (("documents", "a#b#"), ("blank-lines", "a##b#"), ("csv", "text#a#b#"),
                             ("jsonl", '{"text": "a"}#{"text": "b"}#'),
                             ("wikiextractor", "<doc id='1'>#a#b#</doc>#")):
            found, issues = read(write(tmp_path, text.replace("#", end)), format)
            assert [word for document in found for word in document.text.split()] == ["a", "b"]
            assert issues.counts[RETURNS] == count


@pytest.mark.parametrize("text, format, expected", [
    ('{"id": "12", "url": "u", "title": "A", "text": "B &amp; c."}\n', "jsonl", [("B &amp; c.", 1)]),
    ('<doc id="12" url="u" title="A">\nA\n\nB &amp; c &lt; d.\n\n</doc>\n<doc id="1" title="E">\nE\n</doc>\n',
     "wikiextractor", [("A\n\nB & c < d.\n\n", 2), ("E\n", 8)]), ("One.\nTwo.", "documents", [("One.\nTwo.", 1)])])
def test_files_without_ending_are_recognized_by_their_first_characters(text, format, expected, tmp_path):
    path = write(tmp_path, text, "wiki_00")
    file, = resolve_sources([str(path)], "auto")
    assert file.format == format
    assert [(document.text, document.line) for document in read(path, format)[0]] == expected
    for ending, compress in ((".gz", gzip.compress), (".bz2", bz2.compress)):
        packed = write(tmp_path, compress(text.encode()), f"wiki_00{ending}")
        assert [file.format for file in resolve_sources([str(packed)], "auto")] == [format]


def test_markup_is_refused_unless_asked_for(tmp_path):
    for text in ("\n<!DOCTYPE html>\n<p>A", '<?xml version="1.0"?>', "<mediawiki xmlns=''>", "<html lang='en'>",
                 "<div class='a'>", "<SVG>", "<!-- a --> <!--\nb -->\n<p>"):
        path = write(tmp_path, text, "page")
        with pytest.raises(UserError, match=f"^{path}: HTML or XML; extract its text"):
            resolve_sources([str(path)], "auto")
        assert [document.text for document in read(path, "documents")[0]] == [text]
    for name in ("a.html", "a.XML", "a.svg.gz"):
        with pytest.raises(UserError, match=f"{name}: HTML or XML"):
            resolve_sources([str(write(tmp_path, "<a><b>One</b></a>", name))], "auto")
    for name in ("README.md", "a.markdown.gz", "a.TXT"):
        assert [file.format for file in resolve_sources([str(write(
            tmp_path, '<p align="center">\n  <img src="a.png">\n</p>\n\n# Title', name))], "auto")] == ["documents"]
        page = [str(write(tmp_path, "<!DOCTYPE html>\n<style>", name))]
        if name == "a.TXT":
            with pytest.raises(UserError, match=f"{name}: HTML or XML"):
                resolve_sources(page, "auto")
        else:  # Markdown may contain any HTML
            assert [file.format for file in resolve_sources(page, "auto")] == ["documents"]
    assert [file.format for file in resolve_sources([str(write(tmp_path, "<doc id='1'>\n", "a.xml"))], "auto")] == [
        "wikiextractor"]
    for text in ("<3 is a heart", "<pleased> she said", "<!-- a note -->\n# Title", "<b> and <div> are elements"):
        assert [file.format for file in resolve_sources([str(write(tmp_path, text))], "auto")] == ["documents"]
    with pytest.raises(UserError, match=":3: 'loose' is outside of <doc ...> and </doc>"):
        read(write(tmp_path, "<doc id='1'>\n</doc>\nloose\n"), "wikiextractor")
    with pytest.raises(UserError, match=":1: <doc> without </doc>: the file is cut"):
        read(write(tmp_path, "<doc id='1'>\nA text"), "wikiextractor")


def test_json_without_an_ending_is_no_prose(tmp_path):
    for text in ('[{"text": "A"}]', '[\n {\n  "text": "A"\n }\n]', '{\n "text": "A"\n}'):
        file, = resolve_sources([str(write(tmp_path, text, "dump"))], "auto")
        with pytest.raises(UserError, match="dump:1: .*each line must be one JSON object"):
            read(file.path, file.format)
    for text in ("[1] A note.", "[[A link]] and more.", "{A} and {B}.", '{ "A" and so on }'):
        assert [file.format for file in resolve_sources([str(write(tmp_path, text))], "auto")] == ["documents"]


def test_tables(tmp_path):
    path = write(tmp_path, 'id,text\n1,"One, ""two""\nlines"\n2,\n3,Three\n', "a.csv")
    file, = resolve_sources([str(path)], "auto")
    assert file.format == "csv"
    found, issues = read(path, "csv")
    assert [(document.text, document.line) for document in found] == [('One, "two"\nlines', 2), ("", 4), ("Three", 5)]
    assert not issues.counts
    with pytest.raises(UserError, match=r":2: field 'body' is missing \(fields here: id, text\)"):
        read(path, "csv", "body")
    with pytest.raises(UserError, match=r"b.csv:1: field 'text' is missing .fields here: id, body."):
        read(write(tmp_path, "id,body\n", "b.csv"), "csv")
    assert read(write(tmp_path, "id,text\n", "b.csv"), "csv")[1].counts == {"empty files": 1}
    file, = resolve_sources([str(write(tmp_path, 'n\tbody\n1\tSay "x".\n', "b.tsv.gz"))], "auto")
    assert [document.text for document in read_documents(file, FieldNames("body"), DataIssues())] == ['Say "x".']


def test_a_null_text_is_counted(tmp_path):
    path = write(tmp_path, '{"text": null}\n{"text": "One."}\n')
    found, issues = read(path, "jsonl")
    assert [(document.text, document.line) for document in found] == [("One.", 2)]
    assert issues.counts == {"records whose text is null, left out": 1}
    assert issues.places["records whose text is null, left out"] == [f"{path}:1"]


def test_names_of_fields_need_a_format_with_fields(tmp_path):
    plain, records = SourceFile("a.txt", "documents"), SourceFile("b", "jsonl")
    for fields in (FieldNames("body"), FieldNames("text", "names")):
        require_fields([plain, records], fields)
        with pytest.raises(UserError, match="no source has any .formats here: 'documents'.; omit them"):
            require_fields([plain, plain], fields)
    require_fields([plain], FieldNames())


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
                                     (["d"], "xml", "must be one of auto, documents")]:
        with pytest.raises(UserError, match=message):
            resolve_sources(sources, format)


def test_an_unknown_tfds_name_is_one_line_with_the_nearest_name(tmp_path, monkeypatch):
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path))
    (tmp_path / "my_own_texts").mkdir()
    for name, hint in [("imdb_review/plain_text:1.0.0", "did you mean 'imdb_reviews'? "),
                       ("my_own_text", "did you mean 'my_own_texts'? "), ("imdb_reviews", ""), ("zzzz", "")]:
        with pytest.raises(UserError) as caught:
            read(name, "tfds")
        assert str(caught.value) == (f"source tfds:{name}: neither a directory nor prepared in {tmp_path}; {hint}"
                                     "prepare it there as array_record")


def test_formats_are_listed_once_for_many_files(tmp_path, monkeypatch):
    for i in range(5):
        write(tmp_path, "A text.", f"{i}.txt")
    calls, names = [], FORMATS.names()
    monkeypatch.setattr(FORMATS, "names", lambda: calls.append(1) or names)  # reads the metadata of every package
    assert len(resolve_sources([str(tmp_path)], "auto")) == 5 and len(calls) == 1


def test_symbolic_links_are_followed(tmp_path, monkeypatch):
    for name in ("d/b.txt", "far/away/c.txt", "far/a.txt", "far/.hidden/x"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    folder = tmp_path / "d"
    (folder / "link").symlink_to("../far")
    (folder / "one.txt").symlink_to("b.txt")
    (tmp_path / "far" / "up").symlink_to(folder)  # a cycle
    (tmp_path / "far" / "here").symlink_to(".")
    (folder / "again").symlink_to("link")  # a directory is read once
    expected = [f"{folder}/{name}" for name in ("b.txt", "one.txt", "again/a.txt", "again/away/c.txt")]
    assert [file.path for file in resolve_sources([str(folder)], "auto")] == expected
    assert reading.resolve_files(str(folder)) == expected
    everywhere = [f"{tmp_path}/d/{name}" for name in ("again/a.txt", "again/away/c.txt", "b.txt", "one.txt")]
    for pattern in ("d/**", "d/**/*", "d/**/**/*.txt", "*/**/b.txt", "**/d/**/*.txt"):
        found = [file.path for file in resolve_sources([f"{tmp_path}/{pattern}"], "auto")]
        assert found == ([path for path in everywhere if "b.txt" in path] if "b.txt" in pattern else everywhere)
        assert reading.resolve_files(f"{tmp_path}/{pattern}") == found
    monkeypatch.chdir(tmp_path)
    assert [file.path for file in resolve_sources(["**/c.txt"], "auto")] == ["d/again/away/c.txt"]
    (tmp_path / "far" / "gone.txt").symlink_to("nothing")
    for source in (str(folder), f"{folder}/link/*.txt", f"{folder}/link/gone.txt"):
        with pytest.raises(UserError, match="/gone.txt: a symbolic link to nothing, which does not exist"):
            resolve_sources([source], "auto")


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
