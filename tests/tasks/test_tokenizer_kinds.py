"""Tasks with tokenizers of every kind: features equal to what transformers makes of the same texts, and answers."""
import dataclasses
from itertools import chain

import numpy as np
import pytest

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks import TASKS
from spanbert_jax.tasks.files.columns import parse_sentence
from spanbert_jax.tasks.files.questions import Question
from spanbert_jax.tasks.files.relations import located
from spanbert_jax.tasks.text_classification import Text
from spanbert_jax.text import keeps_spaces, load_tokenizer, special_ids
from tests.text import kinds

CONTEXT = ("The president of France lives in Paris, near the river. Élise naît à Zürich 😀 and says: \"don't go!\" "
           "東京都に住んでいる。 The old\n house is in Paris.")
ANSWERS = ("Paris", "The president", "Élise", "😀", "Zürich", "don't go", "old\n house", "lives in Paris")


@pytest.fixture(scope="module", params=kinds.KINDS)
def folder(request, tmp_path_factory):
    return kinds.write(request.param, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def theirs(folder):
    return kinds.load_by_transformers(folder, add_prefix_space=True)


@pytest.fixture(scope="module")
def plain(folder):
    return kinds.load_by_transformers(folder)


def task(name, **settings):
    made = TASKS.get(name)
    return made(made.Settings(**settings))


def question(answer):
    at = CONTEXT.index(answer)
    return Question(answer, "f:1", "g", "who lives in France?", CONTEXT, ((answer, at),), gold=(answer,))


def test_windows_of_question_answering(tokenizer, plain):
    length, stride = 36, 5
    made = task("question_answering", length=length, stride=stride, question_length=20)
    features = made.features([question("Paris")], tokenizer, DataIssues())
    room = length + len(plain("x", add_special_tokens=False)["input_ids"]) - len(
        plain("who lives in France?", "x")["input_ids"])
    expected = plain("who lives in France?", CONTEXT, truncation="only_second", max_length=length, stride=room - stride,
                     return_overflowing_tokens=True, return_token_type_ids=True)
    assert len(features) == len(expected["input_ids"]) > 2
    for number in range(len(features)):
        at = features.token_slice(number)
        assert features.tokens[at].tolist() == expected["input_ids"][number]
        # In further windows, the library leaves the type 1 where the post-processor has 0.
        assert features.token_types[at].tolist() == expected["token_type_ids"][0][:at.stop - at.start]


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_are_found_as_they_are_in_the_text(answer, tokenizer):
    made, questions = task("question_answering", length=400, stride=50, question_length=20), [question(answer)]
    issues = DataIssues()
    features = made.features(questions, tokenizer, issues)
    logits = np.zeros((2, len(features.tokens)), np.float32)
    logits[0, features.columns["start"][0]] = logits[1, features.columns["end"][0]] = 20
    (prediction,) = made.decode(questions, features, {"start_logits": logits[0], "end_logits": logits[1]})
    inside = CONTEXT.index(answer)
    whole = prediction["answer"]
    assert CONTEXT[prediction["start"]:prediction["end"]] == whole
    if not issues.counts:  # else a token of the small vocabulary crosses the answer's ends, and it is widened
        assert (whole, prediction["start"]) == (answer, inside)
    else:
        assert answer in whole and len(whole) < len(answer) + 12


def test_words_of_sentences(tokenizer, theirs):
    words = ["The", "president", "lives", "in", "Zürich", ",", "東京", "."]
    sentence = parse_sentence({"id": "1", "tokens": words, "tags": ["O"] * 4 + ["B-LOC"] + ["O"] * 3}, "f:1",
                              DataIssues())
    made = task("token_classification", length=100).fit([sentence], tokenizer)
    features = made.features([sentence], tokenizer, DataIssues())
    numbers = features.token_columns["word"]
    firsts = np.flatnonzero(numbers >= 0)
    assert numbers[firsts].tolist() == list(range(len(words)))
    prefix = " " * keeps_spaces(tokenizer)
    pieces = [theirs(prefix + word, add_special_tokens=False)["input_ids"] for word in words]
    special = special_ids(tokenizer)
    assert features.tokens.tolist() == [special.cls, *chain.from_iterable(pieces), special.sep]
    np.testing.assert_array_equal(firsts, 1 + np.cumsum([0, *map(len, pieces[:-1])]))


def test_words_are_split_as_by_transformers(folder, tokenizer, theirs):
    if "add_prefix_space" not in theirs.backend_tokenizer.to_str():
        pytest.skip("transformers puts no space before words that are given one by one")
    words = ["The", "president", "lives", "in", "Zürich", ",", "東京", "."]
    sentence = parse_sentence({"id": "1", "tokens": words}, "f:1", DataIssues())
    features = task("token_classification", length=100).features([sentence], tokenizer, DataIssues(), False)
    expected = theirs(words, is_split_into_words=True)
    assert features.tokens.tolist() == expected["input_ids"]


@pytest.mark.parametrize("length", [10, 14, 100])
def test_pairs_of_texts(length, tokenizer, plain):
    texts = "The president of France lives in Paris, near the river", "The old house is near"
    made = task("text_classification", text="a", second="b", length=length)
    features = made.features([Text("1", "f:1", "g", *texts, "x")], tokenizer, DataIssues(), False)
    expected = plain(*texts, truncation="longest_first", max_length=length, return_token_type_ids=True)
    assert len(features.tokens) <= length and abs(
        sum(expected["token_type_ids"]) - features.token_types.sum()) <= 1  # whose turn it is at the end
    if length == 100:
        assert features.tokens.tolist() == expected["input_ids"]
        assert features.token_types.tolist() == expected["token_type_ids"]


def test_markers_of_relations_are_words(tokenizer):
    example = located({"text": "Élise lives in Paris", "subject": [0, 5], "object": [15, 20]}, "f:1")
    made = task("relation_extraction", marking="text", markers="words", length=100)
    made = made.fit([dataclasses.replace(example, relation=name) for name in ("in", "of")], tokenizer)
    features = made.features([example], tokenizer, DataIssues(), False)
    text = tokenizer.decode(features.tokens.tolist(), skip_special_tokens=True)
    assert " ".join(text.split()).startswith("( subject Élise ) lives in ( object Paris )")
