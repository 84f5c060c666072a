"""Files of translations: tables, JSON lines, parallel plain files, and one-line errors."""
import gzip
import json

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files.translations import parse_translation, read_translations
from tests.paths import DATA, needs_data

PAIRS = [("A house.", "Ein Haus."), ("Two  trees", "Zwei Bäume"), ("a house", "das Haus")]


def read(path, source="source", target="target", columns=(), with_labels=True, id_field=""):
    issues = DataIssues()
    return list(read_translations(str(path), source, target, columns, id_field, issues, with_labels)), issues


def test_all_formats_give_the_same_pairs(tmp_path):
    rows = "".join(f"{source}\t{target}\n" for source, target in PAIRS)
    (tmp_path / "named.tsv").write_text("en\tde\n" + rows, encoding="utf-8")
    (tmp_path / "bare.tsv.gz").write_bytes(gzip.compress(rows.encode()))
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps({"en": a, "de": b}) + "\n" for a, b in PAIRS))
    nested = [{"translation": {"en": source, "de": target}} for source, target in PAIRS]
    (tmp_path / "nested.json").write_text("".join(json.dumps(record) + "\n" for record in nested))
    (tmp_path / "array.json").write_text(json.dumps(nested))
    (tmp_path / "plain.en").write_text("".join(f"{source}\n" for source, _ in PAIRS))
    (tmp_path / "plain.de").write_text("".join(f"{target}\n" for _, target in PAIRS), encoding="utf-8")
    for name in ("named.tsv", "bare.tsv.gz", "lines.jsonl", "nested.json", "array.json", "plain.en"):
        found, issues = read(tmp_path / name, "en", "de", ("en", "de") if name.startswith("bare") else ())
        assert [(one.source, *one.targets) for one in found] == PAIRS and not issues.counts
    # Sentences of the same words are held back together.
    assert found[0].group == found[2].group != found[1].group
    assert [one.id for one in found] == ["1", "2", "3"] and found[1].location == f"{tmp_path / 'plain.en'}:2"


def test_sources_are_enough_for_prediction(tmp_path):
    (tmp_path / "plain.en").write_text("one\n\ntwo\n")
    found, issues = read(tmp_path / "plain.en", "en", "de", with_labels=False)
    assert [(one.source, one.targets) for one in found] == [("one", ()), ("", ()), ("two", ())]
    assert issues.counts == {"empty sources": 1} and issues.places["empty sources"] == [f"{tmp_path / 'plain.en'}:2"]
    (tmp_path / "lines.jsonl").write_text('{"en": "one"}\n')
    assert read(tmp_path / "lines.jsonl", "en", "de", with_labels=False)[0][0].targets == ()
    for text, columns in (("one, or\ntwo\n", ()), ('en\n"one, or"\ntwo\n', ()), ("id\ten\n1\tone, or\n2\ttwo\n", ()),
                          ("1\tone, or\n2\ttwo\n", ("id", "en")), ('{"en": "one, or"}\n{"en": "two"}\n', ())):
        (tmp_path / "standard-input").write_text(text)
        found, _ = read(tmp_path / "standard-input", "en", "de", columns, with_labels=False)
        assert [one.source for one in found] == ["one, or", "two"]
    assert parse_translation({"translation": {"en": "one"}}, "en", "input 1", DataIssues()).source == "one"


def test_each_pair_of_a_folder_with_both_files_is_read_once(tmp_path):
    for ending, word in (("en", "one"), ("de", "eins"), ("fr", "un")):
        (tmp_path / f"plain.{ending}").write_text(f"{word}\n")
    for with_labels in (True, False):
        found, issues = read(tmp_path / "plain.de", "en", "de", with_labels=with_labels)
        assert not found and list(issues.places.values()) == [[str(tmp_path / "plain.de")]]
    assert [one.source for one in read(tmp_path / "plain.de", "de", "fr")[0]] == ["eins"]
    # What is to be translated may lie beside anything.
    assert [one.source for one in read(tmp_path / "plain.de", "de", "en", with_labels=False)[0]] == ["eins"]


def test_ids_from_a_column(tmp_path):
    (tmp_path / "lines.jsonl").write_text('{"name": "a7", "en": "one", "de": "eins"}\n'
                                          '{"name": "b", "en": "x", "de": "y"}\n')
    assert [one.id for one in read(tmp_path / "lines.jsonl", "en", "de", id_field="name")[0]] == ["a7", "b"]


def test_pairs_with_an_empty_side_are_left_out_and_counted(tmp_path):
    (tmp_path / "lines.tsv").write_text("en\tde\none\teins\n \tzwei\nthree\t\n")
    found, issues = read(tmp_path / "lines.tsv", "en", "de")
    assert [one.source for one in found] == ["one"]
    assert issues.counts == {"pairs with an empty source or target, left out": 2}


@pytest.mark.parametrize("lines,others,message", [
    (3, 2, "plain.de: it has 2 lines, but .*plain.en has more"),
    (2, 3, "plain.en: it has 2 lines, but .*plain.de has more"), (1, 0, "plain.de: it has 0 lines")])
def test_different_numbers_of_lines_are_rejected(lines, others, message, tmp_path):
    (tmp_path / "plain.en").write_text("a\n" * lines)
    (tmp_path / "plain.de").write_text("b\n" * others)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "plain.en", "en", "de")


@pytest.mark.parametrize("name,content,message", [
    ("plain.en", "a\n", "plain.en: its translations, .*plain.de, do not exist"),
    ("lines.jsonl", '{"en": "a"}\n', "lines.jsonl:1: no field 'de'"),
    ("lines.tsv", "A house.\tEin Haus.\nb\tc\n", r"lines.tsv:2: no field 'en'; there are 'A house.', .*set config.task"
     r".source and target, or config.task.columns=\"\('en','de'\)\""),
    ("lines.jsonl", '{"en": 3, "de": "b"}\n', "field 'en' is 3, which is not of type str"),
    ("lines.tsv", "en\tde\na\n", "lines.tsv:2: 1 field, but 2 columns"),
    ("lines.jsonl", "{\n", "lines.jsonl:1: not a JSON line")])
def test_errors_are_one_line(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        read(tmp_path / name, "en", "de")
    assert "\n" not in str(raised.value)


def test_inputs_from_python():
    issues = DataIssues()
    assert parse_translation("a text", "en", "input 1", issues).source == "a text"
    assert parse_translation({"en": "a text"}, "en", "input 1", issues).source == "a text" and not issues.counts
    assert parse_translation(" ", "en", "input 2", issues).source == " "
    assert issues.places == {"empty sources": ["input 2"]}
    with pytest.raises(UserError, match="input 3: no field 'en'"):
        parse_translation({"de": "ein Text"}, "en", "input 3", issues)


@needs_data
@pytest.mark.parametrize("name,count", [("bible-kjv-rv1909.en-es.tsv.gz", 29_506), ("debian-mt.en-ja.tsv.gz", None)])
def test_whole_real_files(name, count):
    with gzip.open(DATA / name, "rt", encoding="utf-8") as lines:
        expected = [tuple(line.rstrip("\n").split("\t")) for line in lines]
    found, issues = read(DATA / name, columns=("source", "target"))
    assert [(one.source, *one.targets) for one in found] == expected and not issues.counts
    assert count in (None, len(found))
