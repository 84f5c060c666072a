"""Documents with chains in columns: CoNLL-2012 and its variants, read and written."""
import dataclasses
import random
import time

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files import coreference, coreference_columns, coreference_documents
from spanbert_jax.tasks.files.coreference import parse_coreference, to_conll
from spanbert_jax.tasks.files.coreference_columns import CROSSING
from tests.tasks.files.test_coreference import content, read, texts, write

CONLL = """#begin document (bc/cctv/00/cctv_0000); part 000
bc/cctv/00/cctv_0000   0   0    -LRB-   NNP   (TOP*   -   -   -   Speaker#1   *   (0|(12
bc/cctv/00/cctv_0000   0   1      Hun   NNP      *    -   -   -   Speaker#1   *   (ARG*   12)|(3)

bc/cctv/00/cctv_0000   0   0       he   PRP      *    -   -   -   -   *   (12)
bc/cctv/00/cctv_0000   0   1       /.     .      *)   -   -   -   -   *   0)

#end document
#begin document (bc/cctv/00/cctv_0000); part 001
bc/cctv/00/cctv_0000   1   0      She   PRP   (TOP*   -   -   -   -   *   -
#end document
#begin document (empty); part 000
#end document
"""


def rows(*columns):
    """A document of three columns."""
    return "# begin document d\n" + "".join(f"{number}\tw{number}\t{chains}\n" for number, chains in enumerate(columns))


def test_parts_of_conll_2012(tmp_path):
    path = write(tmp_path / "a.v4_gold_conll", CONLL)
    (first, second, empty), issues = read(path)
    assert first.text == "( Hun\nhe ."
    assert (first.id, first.group, first.location) == ("bc/cctv/00/cctv_0000_0", "bc/cctv/00/cctv_0000", f"{path}:1")
    assert (second.id, second.group) == ("bc/cctv/00/cctv_0000_1", "bc/cctv/00/cctv_0000")
    assert first.chains == (((0, 2), (2, 3)), ((0, 4),), ((1, 2),)) and second.chains == ()
    assert first.sentences == (0, 2)
    assert first.speakers == ("Speaker#1", "Speaker#1", "", "") and second.speakers is None
    assert (empty.text, empty.words, empty.sentences, empty.chains) == ("", (), (), ())
    assert issues.counts == {"documents without words": 1}


def test_labels_are_ignored_for_prediction(tmp_path):
    broken = CONLL.replace("(0|(12", "???")
    (first, *_), _ = read(write(tmp_path / "a.conll", broken), with_labels=False)
    assert first.chains is None and first.given_chains is None and first.text == "( Hun\nhe ."


def test_brackets_match_by_chain_in_any_order(tmp_path):
    path = write(tmp_path / "a.conll", rows("(1(2", "(2", "1)", "2)2)(3(3)", "_", "3)") + "# end document\n")
    (document,), issues = read(path)
    assert document.chains == (((0, 3),), ((0, 4), (1, 4)), ((3, 4), (3, 6))) and not issues.counts
    assert texts(document, document.chains)[2] == ["w3", "w3 w4 w5"]


def test_empty_last_columns_are_none(tmp_path):
    lines = ["d\t0\t0\ta\t_\t_\t(7\t", "d\t0\t1\t\t_\t_\t\t", "d\t0\t1\tc\t_\t_\t7)\t\t"]
    (document,), _ = read(write(tmp_path / "a.conll", "\n".join(["#begin document (d); part 0", *lines])))
    assert document.chains == (((0, 3),),) and document.text == "a _ c"


def test_sentences_of_three_columns(tmp_path):
    words = ["He", "left", ".", "She", "."]
    lines = [f"{number}\t{word}\t_" for number, word in enumerate(words)]
    (found,), _ = read(write(tmp_path / "a.conll", "\n".join(["# begin document ", *lines])))
    (marked,), _ = read(write(tmp_path / "b.conll", "\n".join(["# begin document ", *lines[:1], "", *lines[1:], ""])))
    assert (found.sentences, marked.sentences) == ((0, 3), (0, 1))
    assert (found.id, found.text, marked.text) == ("a", "He left .\nShe .", "He\nleft . She .")


def test_what_is_repaired_is_counted(tmp_path):
    text = rows("(1)(1)", "_") + rows("(1)").replace("w0", " ") + "# a comment\n"
    documents, issues = read(write(tmp_path / "a.conll", text))
    assert [document.id for document in documents] == ["d", "d-2"]
    assert [document.chains for document in documents] == [(((0, 1),),)] * 2
    assert documents[1].text == "_"
    assert issues.counts == {
        "mentions that a chain has twice, kept once": 1, "blank words, replaced by _": 1, "comment lines, skipped": 1,
        "documents without #end document, ended by the next one": 1,
        "documents without #end document, ended by the end of the file": 1,
        "examples with the id of an earlier one, numbered": 1}


@pytest.mark.parametrize("text, line, message", [
    (rows("(1", "_"), 2, "a mention of chain 1 starts and does not end in its document (id 'd')"),
    (rows("(1", "1)", "(2)1)"), 4, "a mention of chain 1 ends that was not started"),
    (rows("_", "(x)"), 3, "'(x)' in the column of chains"), (rows("(1(", "_"), 2, "'(1(' in the column of chains"),
    (rows("1"), 2, "'1' in the column of chains"), (rows("(" + "1" * 5_000), 2, "in the column of chains"),
    (rows("_") + "d\t0\t1\tw\t_\n", 3, "number of columns: 5, in a document whose first line has three"),
    (rows("_").replace("\tw0", ""), 2, "number of columns: 2"),
    ("#end document\n", 1, "#end document without #begin document"),
    ("d\t0\t1\tw\t_\n" + rows("_"), 1, "a word outside a document")])
def test_errors_name_the_line(tmp_path, text, line, message):
    path = write(tmp_path / "a.conll", text)
    with pytest.raises(UserError) as raised:
        read(path)
    assert str(raised.value).startswith(f"{path}:{line}: ") and message in str(raised.value)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < len(str(path)) + 300


def crosses(chain):
    """Whether two mentions share two words or more, and each has a word that the other lacks."""
    return any(a < c < b - 1 and b < d for a, b in chain for c, d in chain)


def test_random_chains_return_as_written(tmp_path):
    generator, path = random.Random(0), tmp_path / "a.conll"
    for _ in range(200):
        count = generator.randint(1, 12)
        words = [generator.choice(["a", "#", "(3)", "_", "w w", "é"]) for _ in range(count)]
        chains = [[(start, generator.randint(start + 1, count)) for start in generator.choices(range(count), k=4)]
                  for _ in range(3)]
        chains = [chain for chain in chains if not crosses(chain)]
        starts = sorted({0, *generator.choices(range(count), k=2)})
        sentences = [words[start:end] for start, end in zip(starts, [*starts[1:], count])]
        record = {"id": generator.choice(["#1", "a b_0", "x); part 3", "b\nc"]), "sentences": sentences,
                  "speakers": generator.choices(["", "A B", "C"], k=count),
                  "clusters": [[[start, end - 1] for start, end in chain] for chain in chains]}
        document, issues = parse_coreference(record, "x", DataIssues(), True), DataIssues()
        (again,), _ = read(write(path, to_conll(document, document.chains, issues)))
        assert (again.chains, again.sentences) == (document.chains, document.sentences)
        assert again.text == document.text.replace("w w", "w_w")
        assert again.speakers == (document.speakers and tuple(one.replace(" ", "_") for one in document.speakers))
        assert again.group == " ".join(document.id.split()) and not issues.counts


def test_mentions_that_cross_in_their_chain_are_counted():
    document = parse_coreference({"tokens": list("abcdef")}, "x", DataIssues())
    for chain, crossing in ([(0, 3), (1, 4)], 1), ([(0, 3), (2, 5)], 0), ([(0, 5), (1, 3), (2, 4), (3, 6)], 1):
        issues = DataIssues()
        to_conll(document, [chain], issues)
        assert issues.counts[CROSSING] == crossing


def test_columns_of_conll_2012_are_written():
    document = parse_coreference({"id": "d_2", "sentences": [["Ann", "ran"], ["She"]], "speakers": ["B", "B", ""]}, "x",
                                 DataIssues())
    written = to_conll(dataclasses.replace(document, group="d"), [[(0, 1), (2, 3)], [(0, 2)]])
    assert written.split("\n") == [
        "#begin document (d); part 002", "d\t2\t0\tAnn\t-\t-\t-\t-\t-\tB\t*\t(1|(0)",
        "d\t2\t1\tran\t-\t-\t-\t-\t-\tB\t*\t1)", "", "d\t2\t0\tShe\t-\t-\t-\t-\t-\t-\t*\t(0)", "", "#end document", ""]
    assert content(document)[0] == "Ann ran\nShe"


def test_deeply_nested_mentions_take_linear_time(tmp_path):
    def seconds(count):
        document = parse_coreference({"tokens": ["w"] * count}, "x", DataIssues())
        chain, started = [(number, count - number) for number in range(count // 2)], time.process_time()
        (again,), _ = read(write(tmp_path / "a.conll", to_conll(document, [chain])))
        assert again.chains == (tuple(chain),)
        return time.process_time() - started

    short = seconds(2_000)
    assert seconds(40_000) < 0.5 + 100 * short  # a square would take 400 times as long


@pytest.mark.parametrize("limit", ["MOST_WORDS", "MOST_CHARACTERS"])
def test_documents_have_a_limit(limit, tmp_path, monkeypatch):
    for module in (coreference, coreference_columns, coreference_documents):
        monkeypatch.setattr(module, limit, 3, raising=False)
    text = write(tmp_path / "a.txt", "a b c d")
    with pytest.raises(UserError, match="more than 3|3 are the most: divide the document"):
        read(text, with_labels=False)
    if limit == "MOST_WORDS":
        with pytest.raises(UserError, match=r"a\.conll:5: a document of more than 3 words"):
            read(write(tmp_path / "a.conll", rows("_", "_", "_", "_")))
