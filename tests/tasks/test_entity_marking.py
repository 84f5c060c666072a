"""Entity marking: the four markings by hand, overlaps, markers of any vocabulary, truncation."""
import numpy as np
import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.tasks import entity_marking
from spanbert_jax.tasks.entity_marking import (
    LOST,
    MARKINGS,
    TRUNCATED,
    MarkedSentence,
    assign_markers,
    marker_ids,
    marker_names,
    shorten,
)
from spanbert_jax.tasks.files.relations import Relation
from spanbert_jax.text import SPECIAL_TOKENS, load_tokenizer, special_ids

WORDS = ["Ann", "Lee", "was", "born", "in", "New", "York", "City", "##ish", "(", ")", "subject", "object", "per",
         "city", "state", "or", "unknown", "."]
UNUSED = [f"[unused{number}]" for number in (0, 2, 1, 3, 10, 4, 5, 6, 7)]
ANN = Relation("1", "f:1", "d", ("Ann", "Lee", "was", "born", "in", "New", "York", "."), (0, 1), (5, 6), "PER", "CITY",
               "r")
NESTED = Relation("2", "f:2", "d", ("in", "New", "York", "City", "."), (1, 2), (1, 3), "PER", "CITY", "r")
CROSSING = Relation("3", "f:3", "d", ("in", "New", "York", "City", "."), (2, 3), (1, 2), "PER", "CITY", "r")


def make_tokenizer(directory, pieces):
    file = directory / "vocab.txt"
    file.write_text("".join(f"{piece}\n" for piece in [*SPECIAL_TOKENS, *pieces]))
    return load_tokenizer(file)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"), WORDS + UNUSED)


def marked(tokenizer, example, marking, markers="unused", length=64):
    """Tokens of an example after `mark` and `shorten`, and the issue."""
    assigned = assign_markers(marker_names([ANN], marking), tokenizer, markers)
    words = {word: tokenizer.encode(word, add_special_tokens=False).ids for word in example.tokens}
    special = special_ids(tokenizer)
    result = entity_marking.mark(example, marking, words, marker_ids(assigned, tokenizer), special.sep)
    tokens, issue = shorten(result, special, length)
    return " ".join(tokenizer.id_to_token(token) for token in tokens), issue


@pytest.mark.parametrize("marking, expected", [
    ("ner", "[CLS] [unused5] was born in [unused6] . [SEP]"),
    ("text", "[CLS] [unused1] Ann Lee [unused2] was born in [unused3] New York [unused4] . [SEP]"),
    ("text_ner", "[CLS] [unused1] Ann Lee [unused2] was born in [unused3] New York [unused4] . "
                 "[SEP] [unused5] [SEP] [unused6] [SEP]"),
    ("ner_text", "[CLS] [unused5] was born in [unused6] . [SEP] Ann Lee [SEP] New York [SEP]"),
])
def test_the_four_markings(tokenizer, marking, expected):
    assert marked(tokenizer, ANN, marking) == (expected, "")


@pytest.mark.parametrize("example, marking, expected", [
    (NESTED, "ner", "[CLS] in [unused5] [unused6] . [SEP]"),
    (NESTED, "text", "[CLS] in [unused1] [unused3] New York [unused2] City [unused4] . [SEP]"),
    (NESTED, "ner_text", "[CLS] in [unused5] [unused6] . [SEP] New York [SEP] New York City [SEP]"),
    (CROSSING, "ner", "[CLS] in [unused6] [unused5] . [SEP]"),
    (CROSSING, "text", "[CLS] in [unused3] New [unused1] York [unused4] City [unused2] . [SEP]"),
])
def test_overlapping_entities_have_all_their_markers(tokenizer, example, marking, expected):
    assert marked(tokenizer, example, marking) == (expected, "")


@pytest.mark.parametrize("marking, expected", [
    ("ner", "[CLS] ( subject per ) was born in ( object city ) . [SEP]"),
    ("text", "[CLS] ( subject Ann Lee ) was born in ( object New York ) . [SEP]"),
])
def test_markers_of_ordinary_words(tmp_path, marking, expected):
    assert marked(make_tokenizer(tmp_path, WORDS), ANN, marking, "words") == (expected, "")


def test_markers_come_in_order_of_first_use():
    other = Relation("4", "f:4", "d", ("a", "b"), (0, 0), (1, 1), "ORG", "PER", "r")
    edges = ["SUBJ_START", "SUBJ_END", "OBJ_START", "OBJ_END"]
    assert marker_names([ANN, other, ANN], "text") == edges
    for marking in ("ner", "text_ner", "ner_text"):
        assert marker_names([ANN, other, ANN], marking) == [
            *edges, "SUBJ=PER", "OBJ=CITY", "SUBJ=ORG", "OBJ=PER", "SUBJ=UNKNOWN", "OBJ=UNKNOWN"]


def test_unused_entries_are_used_in_order_from_1(tokenizer):
    assigned = assign_markers([f"m{number}" for number in range(8)], tokenizer, "unused")
    assert list(assigned.values()) == [f"[unused{number}]" for number in (1, 2, 3, 4, 5, 6, 7, 10)]
    assert marker_ids(assigned, tokenizer)["m7"] == [tokenizer.token_to_id("[unused10]")]


def test_a_vocabulary_without_enough_unused_entries(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"9 entity markers.* has 8 entries.*markers to 'words'"):
        assign_markers([f"m{number}" for number in range(9)], tokenizer, "unused")
    with pytest.raises(UserError, match=r"no entry \[unused1\].*SUBJ_START"):
        marker_ids({"SUBJ_START": "[unused1]"}, make_tokenizer(tmp_path, WORDS))


def test_a_type_that_cannot_be_spelled(tokenizer):
    spelled = assign_markers(["OBJ=STATE_OR_CITY"], tokenizer, "words")
    assert spelled == {"OBJ=STATE_OR_CITY": "( object state or city )"}
    with pytest.raises(UserError, match="SUBJ=MISC: the vocabulary cannot spell '. subject misc .'"):
        assign_markers(["SUBJ=MISC"], tokenizer, "words")


def long_example(before, between, after):
    """Words w0, w1, ... with "Ann Lee" and "New York" among them."""
    tokens = ["was"] * before + ["Ann", "Lee"] + ["in"] * between + ["New", "York"] + ["born"] * after
    second = before + 2 + between
    return Relation("1", "f:1", "d", tuple(tokens), (before, before + 1), (second, second + 1), "PER", "CITY", "r")


@pytest.mark.parametrize("before, between, after, length, expected", [
    # The text between the entities first, then what is nearest on either side.
    (9, 2, 9, 12, "[CLS] was was was [unused5] in in [unused6] born born born [SEP]"),
    (9, 2, 9, 11, "[CLS] was was was [unused5] in in [unused6] born born [SEP]"),
    (9, 2, 0, 9, "[CLS] was was was [unused5] in in [unused6] [SEP]"),
    (0, 1, 9, 9, "[CLS] [unused5] in [unused6] born born born born [SEP]"),
    (9, 5, 9, 8, "[CLS] [unused5] in in in in [unused6] [SEP]"),
    (9, 0, 9, 4, "[CLS] [unused5] [unused6] [SEP]"),
])
def test_context_is_truncated_and_entities_stay(tokenizer, before, between, after, length, expected):
    found, issue = marked(tokenizer, long_example(before, between, after), "ner", length=length)
    assert issue == TRUNCATED
    assert len(found.split()) == length
    assert found == expected


@pytest.mark.parametrize("marking", MARKINGS)
def test_entities_and_tail_stay_in_order(tokenizer, marking):
    random = np.random.default_rng(0)
    for _ in range(40):
        example, length = long_example(*random.integers(0, 30, 3)), int(random.integers(16, 40))
        whole, _ = marked(tokenizer, example, marking, length=1000)
        found, issue = marked(tokenizer, example, marking, length=length)
        assert len(found.split()) == min(length, len(whole.split()))
        assert issue == (TRUNCATED if found != whole else "")
        rest = iter(whole.split())
        assert all(piece in rest for piece in found.split())
        context = ("was", "in", "born")
        assert [piece for piece in found.split() if piece not in context] == [
            piece for piece in whole.split() if piece not in context]


def test_tokens_next_to_distant_entities_are_kept():
    body = list(range(100, 130))
    entity = [token in (105, 120) for token in body]
    tokens, issue = shorten(MarkedSentence(body, entity, [3]), special=SPECIAL, length=10)
    assert (tokens, issue) == ([2, 105, 106, 107, 108, 117, 118, 119, 120, 3], TRUNCATED)


def test_entities_that_do_not_fit_are_truncated_at_the_end(tokenizer):
    text = "[CLS] [unused1] Ann Lee [unused2] [unused3] [SEP]"
    assert marked(tokenizer, long_example(0, 0, 5), "text", length=7) == (text, LOST)
    text = "[CLS] [unused1] Ann Lee [unused2] [unused3] New York [SEP]"
    assert marked(tokenizer, long_example(0, 0, 5), "text", length=9) == (text, LOST)
    text = "[CLS] [unused1] Ann Lee [unused2] [unused3] New York [unused4] [SEP]"
    assert marked(tokenizer, long_example(0, 0, 5), "text", length=10) == (text, TRUNCATED)
    found, issue = marked(tokenizer, long_example(2, 0, 5), "ner_text", length=7)
    assert (found, issue) == ("[CLS] was was [unused5] [unused6] born [SEP]", LOST)


class SPECIAL:
    cls, sep = 2, 3
