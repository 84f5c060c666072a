"""Files of tagged words: columns, JSON lines, plain text, one-line errors, real files."""
import collections
import json

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files.columns import Columns, read_sentences
from tests.paths import DATA, needs_data


def read(path, with_labels=True, **columns):
    issues = DataIssues()
    return list(read_sentences(str(path), Columns(**columns), issues, with_labels)), issues


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path
    return write


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def test_columns_and_blank_lines(write):
    path = write("train.conll", "\n\nAnn\tB-PER\nLee\tI-PER\n\n\t\n \nsleeps\tO\n.\tO")
    sentences, issues = read(path)
    assert [(one.words, one.tags) for one in sentences] == [
        (("Ann", "Lee"), ("B-PER", "I-PER")), (("sleeps", "."), ("O", "O"))]
    assert [one.location for one in sentences] == [f"{path}:3", f"{path}:8"]
    assert [sentences[1].word_location(word) for word in (0, 1)] == [f"{path}:8", f"{path}:9"]
    assert [one.id for one in sentences] == ["1", "2"]
    assert sentences[0].group != sentences[1].group
    assert not issues.counts


@pytest.mark.parametrize("text, columns", [
    ("Ann NNP I-NP B-PER\nsleeps VBZ I-VP O\n", {}),
    ("Ann\tB-PER\tO\t\nsleeps\tO\tO\t\n", {"tag": 1}),
    ("B-PER\tAnn\nO\tsleeps\n", {"word": -1, "tag": 0}),
    ("1\tAnn \tB-PER\n2\tsleeps \tO\n", {"word": 1, "tag": 2}),
    ("Ann   B-PER\r\nsleeps   O\r\n", {}),
])
def test_positions_of_columns(write, text, columns):
    (sentence,), _ = read(write("train.txt", text), **columns)
    assert (sentence.words, sentence.tags) == (("Ann", "sleeps"), ("B-PER", "O"))


def test_words_may_contain_spaces_with_tabs(write):
    (sentence,), _ = read(write("train.tsv", "New York\tS-LOC\n\xa0\tO\n"))
    assert sentence.words == ("New York", "\xa0")


@pytest.mark.parametrize("words", [("{", '"', "Ann"), ("[", '"', "Ann"), ("[", "]", "Ann"), ("[", "{", "Ann")])
def test_words_that_json_begins_with_are_words(words, write):
    for end in ("\n", " O\n"):
        (sentence,), _ = read(write("words", "".join(f"{word}{end}" for word in words)), with_labels=False)
        assert sentence.words == words


def test_csv_is_refused(write):
    for with_labels in (True, False):
        with pytest.raises(UserError, match="train.CSV.gz: a table of CSV, which is not read"):
            read(write("train.CSV.gz", "word,tag\nAnn,B-PER\n"), with_labels)
    assert len(read(write("train.csv", lines({"tokens": ["Ann"], "tags": ["B-PER"]})))[0]) == 1


def test_documents(write):
    path = write("train.txt", "a O\n\n-DOCSTART- -X- O O\n\nb O\n\nc O\n-DOCSTART- O\nd O\n")
    sentences, _ = read(path)
    assert [one.words for one in sentences] == [("a",), ("b",), ("c",), ("d",)]
    assert [one.group for one in sentences] == [f"{path}:{line}" for line in (1, 3, 3, 8)]


def test_comments_are_skipped_and_counted(write):
    path = write("train.txt", "# id 7 domain=en\nAnn _ _ B-PER\n# _ _ O\n\n# _ _ B-X\n# a\nb O\n")
    with pytest.raises(UserError, match="train.txt:6: 'a' is not a tag"):
        read(path)
    path = write("train.txt", "# id 7 domain=en\n# a\nAnn _ _ B-PER\n# _ _ O\n\n# _ _ B-X\n#\tO\n")
    sentences, issues = read(path)
    assert [one.words for one in sentences] == [("Ann", "#"), ("#", "#")]
    assert issues.counts == {"comment lines, skipped": 2}
    assert sentences[0].word_location(1) == f"{path}:4"


def test_indices_at_the_end_of_words(write):
    path = write("weibo.conll", "科0\tO\n技1\tO\n20\tO\n110\tO\nS10\tO\n\ufffd\ufffd0\tO\n".encode())
    assert read(path, strip_index=True)[0][0].words == ("科", "技", "2", "1", "S", "\ufffd\ufffd")
    assert read(path)[0][0].words == ("科0", "技1", "20", "110", "S10", "\ufffd\ufffd0")
    with pytest.raises(UserError, match="plain.conll:2: 'Ann' does not end with an index.*strip_word_index"):
        read(write("plain.conll", "a1\tO\nAnn\tO\n"), strip_index=True)


@pytest.mark.parametrize("text, columns, expected_parts", [
    ("Ann B-PER\nsleeps\n", {}, [":2", "too few columns (1)", "'sleeps'", "tag_column"]),
    ("Ann B-PER\n", {"tag": 2}, [":1", "too few columns (2)"]),
    ("Ann B-PER\n", {"word": 5}, [":1", "too few columns (2)"]),
    ("Ann B-PER\n", {"word": -3}, [":1", "too few columns (2)"]),
    ("Ann\tO\nsleeps\t\n", {}, [":2", "too few columns (1)"]),
    ("Ann\tO\n\tO\n", {}, [":2", "no word in column 0"]),
    ("Ann O\nsleeps V\n", {}, [":2", "'V' is not a tag", "B- or I-"]),
    ("Ann X-PER\n", {}, [":1", "'X-PER'"]),
    ("Ann B-\n", {}, [":1", "'B-'"]),
    ("Ann o\n", {}, [":1", "'o'"]),
])
def test_errors_in_columns_are_one_line(write, text, columns, expected_parts):
    with pytest.raises(UserError) as error:
        read(write("train.conll", text), **columns)
    message = str(error.value)
    assert all(part in message for part in ["train.conll", *expected_parts]), message
    assert "\n" not in message


def test_tags_are_optional_for_prediction(write):
    path = write("test.conll", "Ann\nsleeps\n\nAnn B-PER\nLee I-PER\n\nAnn NNP\nLee B-PER\n\nno O\ntag\n")
    sentences, _ = read(path, with_labels=False)
    assert [one.words for one in sentences] == [("Ann", "sleeps"), ("Ann", "Lee"), ("Ann", "Lee"), ("no", "tag")]
    assert [one.tags for one in sentences] == [None, ("B-PER", "I-PER"), None, None]


def test_sentences_are_read_as_they_are(write):
    text = "Ann Lee isn't here .\n\nShe lives in New York.\nVitamin B-12\nWhy?\n# not a comment\n"
    sentences, issues = read(write("text", text), with_labels=False)
    assert [one.text for one in sentences] == [line for line in text.splitlines() if line]
    assert [one.id for one in sentences] == ["1", "3", "4", "5", "6"]
    assert sentences[1].words == ("She", "lives", "in", "New", "York", ".") and sentences[1].tags is None
    assert all(one.text[start:end] == word for one in sentences for word, (start, end) in zip(one.words, one.offsets))
    assert issues.counts == {"lines without columns of words and tags, each read as a sentence": 5}
    (only,), _ = read(write("one.txt", "Ann lives here ."), with_labels=False)
    assert only.words == ("Ann", "lives", "here", ".")
    with pytest.raises(UserError, match="text:1: '.' is not a tag"):
        read(write("text", text))  # to train on


@pytest.mark.parametrize("text,words", [
    ("我爱北京天安门。\n他住在上海。\n", ["我 爱 北 京 天 安 门 。", "他 住 在 上 海 。"]),
    ("東京都に住んでいる。\n", ["東 京 都 に 住 んでいる 。"]),
    ("我用 Python 写程序\n", ["我 用 Python 写 程 序"])])
def test_sentences_without_spaces_are_split_into_characters(text, words, write):
    sentences, _ = read(write("text", text), with_labels=False)
    assert [" ".join(one.words) for one in sentences] == words
    assert [one.located()[0] for one in sentences] == text.splitlines()
    for one in sentences:
        assert [one.text[start:end] for start, end in one.located()[1]] == list(one.words)


@pytest.mark.parametrize("text", [
    "Ann NNP I-NP B-PER\n", "Ann NNP _\nsleeps VBZ _\n\nWhy _ _\n", "Ann\nsleeps\nin\nNew York",
    "Ann B-PER\nsleeps\n\nNew LOC B-LOC\n", "Ann Lee\tO\nsleeps\n", "# a b c d\nAnn O\n",
    "我\n爱\n北京\n\n中华人民共和国\n万岁\n", "See\nhttp://a.b.c/d\n."])
def test_columns_are_no_sentences(text, write):
    words = [word for one in read(write("text", text), with_labels=False)[0] for word in one.words]
    assert words == [line.split("\t" if "\t" in line else None)[0] for line in text.splitlines()
                     if line and not line.startswith("#")]


def test_json_lines(write):
    path = write("train.jsonl", lines({"tokens": ["Ann", "New York"], "tags": ["B-PER", "O"]},
                                      {"id": 7, "tokens": ["Lee"], "ner_tags": ["S-PER"]}, {"tokens": [], "tags": []}))
    sentences, issues = read(path)
    assert [(one.id, one.words, one.tags) for one in sentences] == [
        ("1", ("Ann", "New York"), ("B-PER", "O")), ("7", ("Lee",), ("S-PER",))]
    assert sentences[0].located() == ("Ann New York", ((0, 3), (4, 12)))
    assert sentences[0].word_location(1) == f"{path}:1, word 2 (New York)"
    assert dict(issues.counts) == {"sentences without words, left out": 1}
    assert issues.places["sentences without words, left out"] == [f"{path}:3"]


@pytest.mark.parametrize("content", [
    lines({"tokens": ["Ann", "Lee"], "ner_tags": [1, 2]}, {"tokens": ["sleeps"], "ner_tags": [0]}),
    json.dumps([{"tokens": ["Ann", "Lee"], "ner_tags": [1, 2]}, {"tokens": ["sleeps"], "ner_tags": [0]}])])
def test_numbers_of_tags_and_json_files(write, content):
    sentences, _ = read(write("train.json", content), names=("O", "B-PER", "I-PER"))
    assert [(one.words, one.tags) for one in sentences] == [(("Ann", "Lee"), ("B-PER", "I-PER")), (("sleeps",), ("O",))]
    with pytest.raises(UserError, match="train.json:1: 2 is not a tag: .*tag_names"):
        read(write("train.json", content), names=("O", "B-PER"))
    assert [one.tags for one in read(write("train.json", content), with_labels=False)[0]] == [None, None]


@pytest.mark.parametrize("tags", ["B-A I-A L-A U-B O", "B-A M-A E-A S-B O", "B-A I-A E-A S-B O"])
def test_prefixes_of_other_schemes(write, tags):
    expected = ("B-A", "I-A", "E-A", "S-B", "O")
    (sentence,), _ = read(write("train.conll", "".join(f"w {tag}\n" for tag in tags.split())))
    assert sentence.tags == expected
    (sentence,), _ = read(write("train.jsonl", lines({"tokens": ["w"] * 5, "tags": tags.split()})))
    assert sentence.tags == expected


def test_spans_of_characters(write):
    text = "Ann Lee, of New York's U.S. trip"
    spans = [[12, 20, "LOC"], [0, 7, "PER"], [4, 7, "PER"], [24, 25, "MISC"], [23, 27, "LOC"], [8, 9, "X"],
             [29, 31, "Y"]]
    for name in ("label", "labels"):
        (sentence,), issues = read(write("train.jsonl", lines({"text": text, name: spans})))
        assert list(zip(sentence.words, sentence.tags)) == [
            ("Ann", "B-PER"), ("Lee", "I-PER"), (",", "O"), ("of", "O"), ("New", "B-LOC"), ("York", "I-LOC"),
            ("'", "O"), ("s", "O"), ("U", "B-LOC"), (".", "I-LOC"), ("S", "I-LOC"), (".", "I-LOC"), ("trip", "B-Y")]
        assert sentence.text == text and sentence.located()[1][4] == (12, 15)
        # Within Ann Lee, within U.S., and the space; and two letters of the trip.
        assert list(issues.counts.values()) == [3, 1]
    assert read(write("t.jsonl", lines({"text": text, "label": spans})), with_labels=False)[0][0].tags is None


def test_comments_of_germeval(write):
    text = ("#\thttp://de.wikipedia.org/wiki/Bonn\t[2009-10-17]\n1\tBonn\tB-LOC\tO\n2\t#\tO\tO\n\n"
            "#\tn-tv.de [2010-01-01]\n1\tSchwimmt\tO\tO\n")
    sentences, issues = read(write("train.tsv", text), word=1, tag=2)
    assert [(one.words, one.tags) for one in sentences] == [(("Bonn", "#"), ("B-LOC", "O")), (("Schwimmt",), ("O",))]
    assert issues.counts == {"comment lines, skipped": 2}


def test_words_of_plain_text(write):
    texts = ["Ann's U.S. trip\n(2x): très bon", "我在 IBM工作。", " ", "a\ud800b", "葛\U000e0100城か\u3099"]
    sentences, issues = read(write("test.jsonl", lines(*({"text": text} for text in texts))), with_labels=False)
    assert [one.words for one in sentences] == [
        ("Ann", "'", "s", "U", ".", "S", ".", "trip", "(", "2x", ")", ":", "très", "bon"),
        ("我", "在", "IBM", "工", "作", "。"), (), ("a\ufffdb",),  # each text has its prediction
        ("葛\U000e0100", "城", "か\u3099")]  # marks stay with their characters
    for one in sentences:
        text, offsets = one.located()
        assert text == one.text and tuple(text[start:end] for start, end in offsets) == one.words
    assert [one.text for one in sentences[:2]] == texts[:2]
    assert issues.counts == {"half characters (lone surrogates) replaced": 1}


@pytest.mark.parametrize("record, expected_parts", [
    ({"text": "Ann sleeps"}, ["'tokens'"]),
    ({"tokens": ["Ann"]}, ["'tags'"]),
    ({"tokens": ["Ann", 1], "tags": ["O", "O"]}, ["'tokens'", "words"]),
    ({"tokens": ["Ann", "Lee"], "tags": ["O"]}, ["1 tag for 2 words"]),
    ({"tokens": ["Ann"], "ner_tags": [3]}, ["3 is not a tag", "config.task.tag_names"]),
    ({"text": "Ann", "label": [[0, 9, "PER"]]}, ["[0, 9, 'PER'] is not an entity", "length 3"]),
    ({"text": "Ann", "label": [[0, 3, " "]]}, ["is not an entity"]),
    ({"text": "Ann", "label": "PER"}, ["'label'", "list"]),
    ({"tokens": "Ann", "tags": ["O"]}, ["'tokens'", "list"]),
    ({"id": None, "tokens": ["Ann"], "tags": ["O"]}, ["'id'"]),
])
def test_errors_in_json_lines_are_one_line(write, record, expected_parts):
    with pytest.raises(UserError) as error:
        read(write("train.jsonl", lines({"tokens": ["a"], "tags": ["O"]}, record)))
    message = str(error.value)
    assert all(part in message for part in ["train.jsonl:2: ", *expected_parts]), message
    assert "\n" not in message


@needs_data
@pytest.mark.parametrize("name, count", [("wnut17-train", 3394), ("wnut17-dev", 1009), ("weibo-zh-train", 1350),
                                         ("weibo-zh-dev", 270)])
def test_whole_real_files(name, count):
    path = DATA / "ner" / f"{name}.conll"
    sentences, issues = read(path, strip_index=name.startswith("weibo"))
    assert len(sentences) == count and not issues.counts
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    words, tags = ([item for one in sentences for item in getattr(one, field)] for field in ("words", "tags"))
    assert collections.Counter(tags) == collections.Counter(tag for _, tag in rows)
    if name.startswith("wnut"):
        assert words == [word for word, _ in rows]
    else:
        assert len(words) == len(rows)
        assert all(row.startswith(word) and row[len(word):].isdigit() for word, (row, _) in zip(words, rows))
        assert {len(word) for word in words if word != "\ufffd\ufffd"} == {1}


@needs_data
def test_a_real_file_with_more_columns():
    path = next(iter(sorted((DATA / "litbank" / "entities_tsv").iterdir())))
    sentences, issues = read(path, tag=1)
    assert len(sentences) > 20 and not issues.counts
    assert sum(len(one.words) for one in sentences) == sum(bool(line.strip()) for line in open(path, encoding="utf-8"))


def test_sentences_without_end_are_errors(tmp_path, monkeypatch):
    monkeypatch.setattr("spanbert_jax.tasks.files.columns._MOST_WORDS", 1000)
    (tmp_path / "words.txt").write_text("a O\n" * 1000 + "\n" + "a O\n" * 1001)
    with pytest.raises(UserError, match="words.txt:1002: a sentence of more than 1,000 lines; put a blank line"):
        list(read_sentences(str(tmp_path / "words.txt"), Columns(), DataIssues()))
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": "x " * 600_000}))
    with pytest.raises(UserError, match="text.jsonl:1: a sentence of 1,200,000 characters; 1,000,000 are the most"):
        list(read_sentences(str(tmp_path / "text.jsonl"), Columns(), DataIssues(), with_labels=False))
