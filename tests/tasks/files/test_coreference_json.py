"""Documents with chains as JSON records."""
import json

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files.coreference import parse_coreference, read_coreference
from tests.tasks.files.test_coreference import content, read, texts, write

SENTENCES = [["Ann", "-LRB-", "a", "cook", ")"], ["She", "left", "."]]
TOKENS = SENTENCES[0] + SENTENCES[1]
CLUSTERS = [[[5, 5], [0, 4]], [[3, 3]]]
RECORD = {"doc_key": "nw/wsj/00/wsj_0020_1", "sentences": SENTENCES, "clusters": CLUSTERS}


def parse(record, with_labels=True):
    issues = DataIssues()
    return parse_coreference(record, "input 1", issues, with_labels), issues


def test_sentences_with_inclusive_clusters(tmp_path):
    (document,), issues = read(write(tmp_path / "a.jsonl", json.dumps(RECORD)))
    assert document.text == "Ann ( a cook )\nShe left ."
    assert (document.id, document.group) == ("nw/wsj/00/wsj_0020_1", "nw/wsj/00/wsj_0020")
    assert document.chains == (((0, 5), (5, 6)), ((3, 4),))
    assert texts(document, document.chains) == [["Ann ( a cook )", "She"], ["cook"]]
    assert document.sentences == (0, 5) and document.speakers is None and not issues.counts


def test_labels_are_ignored_without_labels():
    document, _ = parse(RECORD | {"clusters": "broken"}, with_labels=False)
    assert (document.chains, document.given_chains, document.mentions) == (None, None, None)


def test_characters_are_the_same_as_words():
    expected, _ = parse(RECORD)
    chains = [[dict(zip(("start", "end"), expected.characters(span))) for span in chain] for chain in expected.chains]
    by_characters, issues = parse({"doc_key": RECORD["doc_key"], "sentences": SENTENCES, "chains": chains})
    assert content(by_characters) == content(expected) and not issues.counts
    pairs = [[list(mention.values()) for mention in chain] for chain in chains]
    for listed in (chains, pairs):
        of_text, _ = parse({"text": expected.text, "clusters": listed})
        assert (of_text.words, of_text.chains) == (expected.words, expected.chains)


def test_predictions_are_read_again():
    text = "Ann  saw\tBob.\n\nShe left"
    document, _ = parse({"text": text}, with_labels=False)
    words = [document.word(number) for number in range(len(document.words))]
    chain = [{"start": 0, "end": 3, "text": "Ann", "words": [0, 1]}, {"start": 15, "end": 18, "words": [4, 5]}]
    prediction = {"id": "a", "tokens": words, "chains": [chain]}
    alone, issues = parse(prediction)
    kept, more = parse(prediction | {"text": text, "clusters": None})
    assert alone.chains == kept.chains == (((0, 1), (4, 5)),) and not issues.counts and not more.counts
    assert (kept.text, kept.words, kept.sentences) == (text, document.words, document.sentences)
    assert texts(alone, alone.chains) == texts(kept, kept.chains) == [["Ann", "She"]]


def test_mentions_inside_words():
    mentions = [{"start": 4, "end": 10}]
    split, issues = parse({"text": "pre-McBride’s", "chains": [[{"start": 6, "end": 11}]]})
    assert texts(split, split.chains) == [["Bride"]] and not issues.counts
    extended, issues = parse({"tokens": ["pre-McBride", "x"], "chains": [mentions]})
    assert texts(extended, extended.chains) == [["pre-McBride"]]
    assert issues.counts == {"mentions that begin or end inside a word, extended to whole words": 1}


def test_sentences_of_flat_tokens_are_found():
    words = 'He said “ Stop . ” She left ... and came ! ) Then " No . " " Oh'.split()
    document, _ = parse({"tokens": words}, with_labels=False)
    assert [document.word(start) for start in document.sentences] == ["He", "She", "Then", '"']


def test_speakers_of_sentences_are_those_of_their_words():
    document, _ = parse(RECORD | {"speakers": ["A", None]})
    assert document.speakers == (*"AAAAA", "", "", "")
    words, _ = parse({"sentences": [["a", "b"], []], "speakers": ["A", "B"], "clusters": []})
    assert words.speakers == ("A", "B")  # as many words as sentences: speakers are of words


@pytest.mark.parametrize("speakers", [["A", "A", "A", None, "-", "B C", "", "_"],
                                      [["A", "A", "A", None, "-"], ["B C", "", "_"]]])
def test_speakers_are_flat_or_by_sentence(speakers):
    document, _ = parse(RECORD | {"speakers": speakers})
    assert document.speakers == ("A", "A", "A", "", "", "B C", "", "")


def test_given_mentions_and_chains():
    given = {"mentions": [[5, 5], [0, 0], [5, 5]], "given_chains": [[[5, 5], [0, 0]], []]}
    document, issues = parse({"tokens": TOKENS} | given, with_labels=False)
    assert document.mentions == ((0, 1), (5, 6)) and document.given_chains == (((0, 1), (5, 6)),)
    assert issues.counts == {"empty chains, left out": 1}


def test_repeated_and_crossing_mentions_and_spans_in_two_chains():
    document, issues = parse({"tokens": TOKENS, "clusters": [[[0, 2], [1, 3], [0, 2]], [[0, 2]], [[1, 1]]]})
    assert document.chains == (((0, 3),), ((0, 3), (1, 4)), ((1, 2),))
    assert issues.counts == {"mentions that a chain has twice, kept once": 1}


def test_blank_words_are_replaced_and_counted():
    document, issues = parse({"tokens": ["a", " ", "New\tYork", "/."]}, with_labels=False)
    assert [document.word(n) for n in range(4)] == ["a", "_", "New York", "."]
    assert issues.counts == {"blank words, replaced by _": 1}


@pytest.mark.parametrize("changes, message", [
    ({"clusters": [[[0, 8]]]}, "[0, 8] in 'clusters' is not a mention: give the numbers of its first"),
    ({"clusters": [[[2, 1]]]}, "[2, 1] in 'clusters' is not a mention"),
    ({"clusters": [[[-1, 1]]]}, "[-1, 1] in"), ({"clusters": [[[True, 1]]]}, "[True, 1] in"),
    ({"clusters": [[[0, 1, 2]]]}, "[0, 1, 2] in"), ({"clusters": [[0, 1]]}, "0 in 'clusters' is not a mention"),
    ({"clusters": [3]}, "entry 1 of 'clusters' is 3; give a list of mentions"),
    ({"clusters": {"a": 1}}, "field 'clusters' is {'a': 1}, which is not of type list"),
    ({"clusters": [[{"start": 3, "end": 99}]]}, "give characters [start, end) of the text of length 25"),
    ({"clusters": [[{"start": 3, "end": 4}]]}, "contains no word"),
    ({"chains": []}, "'clusters' and 'chains'; give one"), ({"tokens": ["a"]}, "'sentences' and 'tokens'; give"),
    ({"text": "Ann the cook"}, "word 2, '(', is not in the text behind the words before it"),
    ({"speakers": ["A"]}, "1 speaker for 8 words; give one for each word or each sentence"),
    ({"sentences": None, "tokens": TOKENS, "speakers": ["A"]}, "1 speaker for 8 words; give one for each word"),
    ({"speakers": [["A"], 3]}, "entry 2 of a list in field 'speakers'"),
    ({"sentences": [["a"], "b"]}, "entry 2 of a list in field 'sentences' is 'b'; give a list of words for each"),
    ({"sentences": [["a", 3]]}, "entry 2 of a list in field 'sentences' is 3; give a list of words for each"),
    ({"sentences": "a b"}, "'a b' in field 'sentences'; give a list of words for each sentence"),
    ({"sentences": None, "tokens": [["a"]]}, "entry 1 of a list in field 'tokens' is ['a']; give one list of words"),
    ({"clusters": [[{"words": [0, 9]}]]}, "{'words': [0, 9]} in 'clusters' is not a mention"),
    ({"mentions": [[0, 9]]}, "[0, 9] in 'mentions' is not a mention")])
def test_errors_name_line_and_id(tmp_path, changes, message):
    path = write(tmp_path / "a.jsonl", "\n" + json.dumps(RECORD | changes))
    with pytest.raises(UserError) as raised:
        list(read_coreference(str(path), DataIssues()))
    assert str(raised.value).startswith(f"{path}:2: id 'nw/wsj/00/wsj_0020_1': ") and message in str(raised.value)


def test_inputs_in_python_may_be_tuples_and_half_characters():
    document, issues = parse({"tokens": ("a", "b\ud800"), "clusters": (((0, 1),),)})
    assert document.text == "a b\ufffd" and document.chains == (((0, 2),),)
    assert list(issues.counts) == ["half characters (lone surrogates) replaced"]


def test_labels_are_required():
    with pytest.raises(UserError, match="no chains; give one of 'clusters' and 'chains'"):
        parse({"text": "a"})
    with pytest.raises(UserError, match="'speakers' of a text"):
        parse({"text": "a", "speakers": ["b"]}, with_labels=False)
