"""Documents with chains: real files against independent counts, formats told apart, GAP, plain text."""
import collections
import itertools
import re

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files import coreference_columns, coreference_documents, reading
from spanbert_jax.tasks.files.coreference import parse_coreference, read_coreference, to_conll
from spanbert_jax.tasks.files.coreference_documents import sentences_of_words
from tests.paths import DATA, needs_data


def read(path, with_labels=True):
    issues = DataIssues()
    return list(read_coreference(str(path), issues, with_labels)), issues


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def texts(document, chains):
    return [[document.text[slice(*document.characters(span))] for span in chain] for chain in chains]


def content(document):
    return document.text, document.words, document.sentences, document.chains, document.speakers


@needs_data
@pytest.mark.parametrize("pattern, word_column, files, words, repaired", [
    ("litbank/coref_conll/*.conll", 3, 84, 177_551, 0), ("ontogum/*/*.conll", 1, 96, 87_391, 1)])
def test_all_mentions_of_real_files_are_kept(tmp_path, pattern, word_column, files, words, repaired):
    paths, total = sorted(DATA.glob(pattern)), 0
    assert len(paths) == files
    for path in paths:
        rows = [line.split("\t") for line in path.read_text("utf-8").split("\n") if line[:1] not in ("#", "")]
        (document,), issues = read(path)
        repaired -= sum(issues.counts.values())
        total += len(rows)
        assert document.text.split() == [row[word_column].strip() or "_" for row in rows]
        column = " ".join(row[-1] for row in rows)
        assert sum(map(len, document.chains)) == column.count("(") == column.count(")")
        assert len(document.chains) == len(set(re.findall(r"\d+", column)))
        assert sum(end - start == 1 for chain in document.chains for start, end in chain) == len(
            re.findall(r"\(\d+\)", column))
        (again,), issues = read(write(tmp_path / path.name, to_conll(document, document.chains, issues)))
        assert content(again) == content(document)
        assert again.group == document.group
    assert (total, repaired) == (words, 0)


@needs_data
def test_sentences_of_words_are_those_of_annotators():
    found, expected, same = 0, 0, 0
    for path in sorted((DATA / "litbank/coref_conll").glob("*.conll"))[::4]:
        (document,), _ = read(path)
        guessed = sentences_of_words([document.word(number) for number in range(len(document.words))])
        found, expected = found + len(guessed), expected + len(document.sentences)
        same += len(set(guessed) & set(document.sentences))
    assert same > 0.98 * found and same > 0.96 * expected > 1_000


@needs_data
def test_rows_of_gap():
    pronouns = collections.Counter()
    for path in sorted((DATA / "gap").glob("*.tsv")):
        documents, issues = read(path)
        rows = [line.split("\t") for line in path.read_text("utf-8").rstrip("\n").split("\n")[1:]]
        assert len(documents) == len(rows) and not issues.counts
        for document, (id, text, pronoun, _, a, _, a_coref, b, _, b_coref, page) in zip(documents, rows):
            gap = document.gap
            assert (document.id, document.text, document.group) == (id, text, page)
            assert texts(document, [[gap.pronoun, gap.a, gap.b]]) == [[pronoun, a, b]]
            assert [gap.a_coref, gap.b_coref] == [a_coref == "TRUE", b_coref == "TRUE"]
            meant = [span for span, flag in ((gap.a, a_coref), (gap.b, b_coref)) if flag == "TRUE"]
            assert document.chains == ((tuple(sorted([gap.pronoun, *meant])),) if meant else ())
            assert document.mentions == tuple(sorted([gap.pronoun, gap.a, gap.b])) and document.partial
            pronouns[gap.gender, pronoun.lower()] += 1
    assert {gender for gender, pronoun in pronouns if pronoun[0] == "h" and pronoun[:3] != "her"} == {"masculine"}
    assert {gender for gender, pronoun in pronouns if pronoun in ("she", "her", "hers")} == {"feminine"}
    assert sum(pronouns.values()) == 2_454


GAP = "ID\tText\tPronoun\tPronoun-offset\tA\tA-offset\tA-coref\tB\tB-offset\tB-coref\tURL"
ROW = ["g-1", "McBride met Ann. She left.", "She", "17", "Bride", "2", "FALSE", "Ann", "12", "TRUE", "page"]


def test_a_name_inside_a_word_splits_it(tmp_path):
    (document,), _ = read(write(tmp_path / "a.tsv", f"{GAP}\n" + "\t".join(ROW)))
    assert [document.word(n) for n in range(3)] == ["Mc", "Bride", "met"]
    assert texts(document, document.chains) == [["Ann", "She"]]


@pytest.mark.parametrize("column, value, message", [
    (3, "16", "'She' is not at Pronoun-offset '16'"), (5, "x", "'Bride' is not at A-offset 'x'"),
    (8, "-4", "'Ann' is not at B-offset"), (9, "", "B-coref is ''; it must be TRUE or FALSE"), (4, "", "A-offset")])
def test_errors_of_gap_name_line_and_id(tmp_path, column, value, message):
    row = [value if place == column else field for place, field in enumerate(ROW)]
    path = write(tmp_path / "a.tsv", f"{GAP}\n" + "\t".join(row))
    with pytest.raises(UserError) as raised:
        read(path)
    assert str(raised.value).startswith(f"{path}:2: id 'g-1': ") and message in str(raised.value)


def test_a_plain_text_is_one_document(tmp_path):
    path = write(tmp_path / "tale.txt", "The fox\nran. It hid\n\nNo end here\n")
    (document,), _ = read(path, with_labels=False)
    assert (document.id, document.chains, document.text) == ("tale", None, "The fox\nran. It hid\n\nNo end here")
    assert [document.word(start) for start in document.sentences] == ["The", "It", "No"]
    with pytest.raises(UserError, match="none of the formats"):
        read(path)


@pytest.mark.parametrize("name, text", [
    ("a.csv", "text\nAnn ran"), ("a.tsv", "ID\tText\nx\tAnn ran"), ("a.HTML", "<p>Ann ran</p>"),
    ("a.conllu", "# sent_id = 1\n1\tAnn\tAnn\tPROPN\t_\t_\t0\t_\t_\t_\n")])
def test_tables_and_markup_are_not_plain_texts(tmp_path, name, text):
    with pytest.raises(UserError, match="none of the formats.*, GAP's table, or plain text"):
        read(write(tmp_path / name, text), with_labels=False)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.conll"])
def test_empty_files_are_counted(tmp_path, name):
    assert read(write(tmp_path / name, ""))[0] == []
    documents, issues = read(tmp_path / name, with_labels=False)
    assert issues.counts == {"empty files": 1}
    assert [document.text for document in documents] == [""] * (name == "a.txt")


@pytest.mark.parametrize("text", ["", " \n\t", "word", "no sentence end " * 50, "لقد رأى أحمد. ثم غادر",
                                  "我看见他。他走了。", "Ann\u200b saw\x00 it", "a\u0301 e\u0301"])
def test_words_cover_all_but_white_space_and_controls(text):
    document = parse_coreference(text, "input 1", DataIssues())
    assert document.text == text
    assert all(start < end for start, end in document.words)
    assert all(one[1] <= next_[0] for one, next_ in itertools.pairwise(document.words))
    covered = "".join(text[start:end] for start, end in document.words)
    assert covered == re.sub(r"[\s\u200b\x00]", "", text)
    assert document.sentences[:1] == (0,) * bool(document.words)


@pytest.mark.parametrize("name, content, message", [
    ("a.conll", b"#begin document (a); part 000\n" + b"ab " * 400_000, "a word with columns of 1,200,000 characters"),
    ("a.conll", b"#begin document (a); part 000\n" + (b"1\ta\t" + b"(1" * 99 + b"\n") * 21,
     "a.conll:22: a document of more than 1,000 mentions"),
    ("a.jsonl", b'{"tokens": [' + b'"ab",' * 500 + b'"ab"], "mentions": [' + b"[0,500]," * 99 + b"[0,500]]}",
     "150,200 characters in mentions; 100,000 are the most"),
    ("a.json", b'[{"tokens": ["a"], "clusters": [' + b"[]," * 2000 + b"[]]}]", "a part of more than 2,000 values"),
    ("a.txt", b'"' * 3000, "a.txt.* 2,997 words; 1,000 are the most")])
def test_documents_have_limits(tmp_path, monkeypatch, name, content, message):
    for module, limit, value in ((coreference_columns, "MOST_MENTIONS", 1000), (reading, "MAX_VALUES", 2000),
                                 (coreference_documents, "MOST_MENTION_CHARACTERS", 100_000),
                                 (coreference_documents, "MOST_WORDS", 1000), (coreference_documents, "_BLOCK", 1000)):
        monkeypatch.setattr(module, limit, value)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(read_coreference(str(tmp_path / name), DataIssues(), with_labels=name in ("a.conll", "a.json")))
