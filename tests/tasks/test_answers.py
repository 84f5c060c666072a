"""Answers from logits, compared with an exhaustive search and with cases by hand."""
import dataclasses
import json

import numpy as np
import pytest
from scipy.special import logsumexp
from transformers.pipelines.question_answering import select_starts_ends

from spanbert_jax.tasks import answers
from spanbert_jax.tasks.answers import AnswerLimits, best_answer, finite_logits
from spanbert_jax.tasks.features import FeatureBuilder
from spanbert_jax.tasks.protocol import NOT_FINITE

WORDS = ["the", "cat", "sat", "on", "the", "mat", "the", "cat", "ran", "on"]
CONTEXT = " ".join(WORDS)
WINDOWS = [(0, 6), (3, 9), (6, 10)]
# The window with most context for each word, by the lesser of the words to its left and right, and .06, .06, .04.
OWNER = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2]
LIMITS = AnswerLimits(n_best=50, length=30, null_answers=False, null_threshold=0.0)
QUESTION = 2  # words of it
FIRST = QUESTION + 2  # position of the chunk


def characters(words):
    starts = np.cumsum([0] + [len(word) + 1 for word in words])[:-1]
    return starts, starts + [len(word) for word in words]


def make(windows=WINDOWS, owner=OWNER, words=WORDS):
    """Features of a question of two words about a context with one token per word."""
    starts, ends = characters(words) if words else ([], [])
    features = FeatureBuilder()
    for number, (begin, end) in enumerate(windows):
        around, outside = [0] * FIRST, [-1] * FIRST
        features.add(0, [1] * (FIRST + end - begin + 1), around + [1] * (end - begin + 1), {}, {
            "char_start": [*outside, *starts[begin:end], -1], "char_end": [*outside, *ends[begin:end], -1],
            "max_context": [*around, *(owner[i] == number for i in range(begin, end)), 0]})
    return features.build({}, {"char_start": np.int32, "char_end": np.int32, "max_context": bool})


FEATURES = make()


def random_logits(seed, features=FEATURES):
    return np.random.default_rng(seed).normal(size=(2, len(features.tokens))).astype(np.float32)


def answer(logits, limits=LIMITS, features=FEATURES, context=CONTEXT):
    found = best_answer(context, features, range(len(features)), finite_logits(*logits), limits)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def every_span(logits, longest):
    """(score, text, first character, end) of all allowed spans, the best first, without duplicate texts."""
    start, end = characters(WORDS)
    spans, base = [], 0
    for number, (a, b) in enumerate(WINDOWS):
        for i in range(a, b):
            for j in range(i, min(b, i + longest)):
                if OWNER[i] == number:
                    score = float(logits[0][base + FIRST + i - a]) + float(logits[1][base + FIRST + j - a])
                    spans.append((score, " ".join(WORDS[i:j + 1]), start[i], end[j]))
        base += FIRST + b - a + 1
    best = {}
    for span in sorted(spans, key=lambda span: -span[0]):
        best.setdefault(span[1], span)
    return list(best.values())


def probabilities(logits, scores, null_window):
    """The share of answers with given scores among all pairs of a start and an end in one window.

    A start counts in the window that owns it, and [CLS] in one window only.
    """
    pairs, base = [], 0
    for number, (a, b) in enumerate(WINDOWS):
        cls = [base] if number == null_window else []
        starts = cls + [base + FIRST + i - a for i in range(a, b) if OWNER[i] == number]
        ends = cls + [base + FIRST + i - a for i in range(a, b)]
        pairs += [float(logits[0][i]) + float(logits[1][j]) for i in starts for j in ends]
        base += FIRST + b - a + 1
    return np.exp(np.array(scores) - logsumexp(pairs))


def least_null(logits):
    return int(np.argmin(logits.astype(np.float64).sum(axis=0)[FEATURES.starts[:-1]]))


def test_the_window_of_a_word_is_the_one_with_most_context():
    for i, owner in enumerate(OWNER):
        scores = [min(i - a, b - 1 - i) + 0.01 * (b - a) if a <= i < b else -1 for a, b in WINDOWS]
        assert scores.index(max(scores)) == owner


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("longest", [1, 2, 3, 30])
def test_all_spans_in_order(seed, longest):
    logits = random_logits(seed)
    expected = every_span(logits, longest)
    found = answer(logits, dataclasses.replace(LIMITS, length=longest))
    assert [(entry["text"], entry["start"], entry["end"]) for entry in found["n_best"]] == [
        span[1:] for span in expected]
    scores = [span[0] for span in expected]
    np.testing.assert_allclose([entry["score"] for entry in found["n_best"]], scores)
    np.testing.assert_allclose([entry["probability"] for entry in found["n_best"]],
                               probabilities(logits, scores, least_null(logits)))
    assert (found["answer"], found["start"], found["end"]) == expected[0][1:] and found["best_answer"] == expected[0][1]
    assert found["score"] == found["n_best"][0]["probability"] and "note" not in found
    for entry in found["n_best"]:
        assert CONTEXT[entry["start"]:entry["end"]] == entry["text"]
        assert entry["start_logit"] + entry["end_logit"] == entry["score"]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_best", [1, 2, 5])
def test_n_best_limits_the_number_of_answers(seed, n_best):
    logits = random_logits(seed)
    found = answer(logits, dataclasses.replace(LIMITS, n_best=n_best))
    expected = every_span(logits, 30)[:n_best]
    assert found["answer"] == expected[0][1]
    assert [entry["text"] for entry in found["n_best"]] == [span[1] for span in expected][:len(found["n_best"])]
    assert found["score"] == answer(logits)["score"] < 1  # whatever is listed


@pytest.mark.parametrize("null_answers", [True, False])
@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0])
def test_probabilities_equal_those_of_transformers(scale, null_answers):
    """Those of its pipeline for a text of one window. A model that knows nothing is sure of no answer."""
    words = [f"w{number}" for number in range(20)]
    features = make([(0, 20)], [0] * 20, words)
    logits = scale * random_logits(7, features)
    outside = np.ones((1, len(features.tokens)), int)
    outside[0, [0, *range(FIRST, FIRST + 20)]] = 0  # [CLS] and the context
    starts, ends, scores, null = select_starts_ends(
        *logits[:, None].astype(np.float64), outside, None, top_k=400, handle_impossible_answer=True, max_answer_len=5)
    expected = {" ".join(words[start - FIRST:end + 1 - FIRST]): score
                for start, end, score in zip(starts, ends, scores) if start >= FIRST} | {"": null}
    found = answer(logits, dataclasses.replace(LIMITS, n_best=400, length=5, null_answers=null_answers), features,
                   " ".join(words))
    listed = {entry["text"]: entry["probability"] for entry in found["n_best"]}
    assert len(listed) == 90 + null_answers  # 20 + 19 + 18 + 17 + 16 spans
    assert listed == pytest.approx({text: expected[text] for text in listed})


def test_the_best_starts_and_ends_may_not_form_a_span():
    """The reference, which combines the two best starts and ends of each window, finds nothing here."""
    logits = np.zeros((2, len(FEATURES.tokens)), np.float32)
    for window in range(3):
        at = FEATURES.token_slice(window)
        chunk = at.stop - 1 - at.start - FIRST
        logits[0, at][FIRST + chunk - 2:-1] = 5, 6  # the last two words begin answers
        logits[1, at][FIRST:FIRST + 2] = 7, 8  # and the first two end them
    found = answer(logits, dataclasses.replace(LIMITS, n_best=2))
    assert found["answer"] == every_span(logits, 30)[0][1] == "the cat"  # 0 + 8
    assert found["n_best"][0]["score"] == 8


def test_ties_go_to_the_earliest_span():
    found = answer(np.zeros((2, len(FEATURES.tokens)), np.float32))
    assert (found["answer"], found["start"], found["end"]) == ("the", 0, 3)


def test_no_answer():
    logits = random_logits(3)
    first = FEATURES.starts[:-1]
    logits[:, first] = [[3.0, 1.0, 2.5], [2.0, 1.5, -1.0]]  # sums are 5, 2.5 and 1.5
    texts = every_span(logits, 30)
    odds = 1.5 - texts[0][0]
    for threshold, given in ((odds - 0.01, ""), (odds, texts[0][1]), (odds + 0.01, texts[0][1])):
        found = answer(logits, dataclasses.replace(LIMITS, null_answers=True, null_threshold=threshold))
        assert found["null_odds"] == pytest.approx(odds) and found["best_answer"] == texts[0][1]
        assert found["answer"] == given and (found["start"] == found["end"] == -1) == (given == "")
        listed = sorted([(1.5, ""), *(span[:2] for span in texts)], key=lambda pair: -pair[0])
        assert [entry["text"] for entry in found["n_best"]] == [text for _, text in listed]
        np.testing.assert_allclose([entry["probability"] for entry in found["n_best"]],
                                   probabilities(logits, [score for score, _ in listed], 2))
        null = found["n_best"][[text for _, text in listed].index("")]
        assert (null["start_logit"], null["end_logit"]) == (2.5, -1.0)
        assert found["score"] == (null if given == "" else found["n_best"][0])["probability"]
        json.dumps(found)


def test_no_answer_is_predicted_only_if_allowed():
    logits = random_logits(4)
    logits[:, FEATURES.starts[:-1]] = 100
    found = answer(logits, dataclasses.replace(LIMITS, null_threshold=-1e9))
    assert found["answer"] == every_span(logits, 30)[0][1] and found["null_odds"] > 190
    assert "" not in [entry["text"] for entry in found["n_best"]]


@pytest.mark.parametrize("null_answers", [True, False])
def test_a_context_without_tokens(null_answers):
    features = make(windows=[(0, 0)], owner=[], words=[])
    logits = random_logits(5, features)
    found = answer(logits, dataclasses.replace(LIMITS, null_answers=null_answers, null_threshold=1e9), features, "")
    assert (found["answer"], found["best_answer"], found["start"], found["end"], found["score"]) == ("", "", -1, -1, 1)
    assert found["note"] == answers.NO_TEXT and [entry["text"] for entry in found["n_best"]] == [""]
    assert found["null_odds"] == pytest.approx(float(logits[:, 0].sum(dtype=np.float64)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("null_answers", [True, False])
def test_logits_that_are_not_finite(value, null_answers):
    logits = random_logits(6)
    finite = answer(logits, dataclasses.replace(LIMITS, null_answers=null_answers))
    logits[:, FEATURES.starts[0] + FIRST + 2] = value
    found = answer(logits, dataclasses.replace(LIMITS, null_answers=null_answers))
    assert found["note"] == NOT_FINITE and "note" not in finite
    assert found["answer"] in CONTEXT and np.isfinite(found["null_odds"])
    assert sum(entry["probability"] for entry in found["n_best"]) <= 1.000001
    everywhere = answer(np.full_like(logits, value), dataclasses.replace(LIMITS, null_answers=null_answers))
    assert everywhere["note"] == NOT_FINITE


def test_nan_logits_are_not_chosen():
    logits = np.zeros((2, len(FEATURES.tokens)), np.float32)
    logits[:, FEATURES.starts[0] + FIRST:FEATURES.starts[1]] = np.nan
    assert answer(logits)["start"] >= len("the cat sat on the ")
