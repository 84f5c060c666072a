"""Metrics of answers, compared with transformers' SQuAD 2.0 scorer and with cases by hand."""
import collections
import json
import re
import types

import numpy as np
import pytest
from transformers.data.metrics import squad_metrics as official

from spanbert_jax.tasks.metrics import question_answering as metrics
from spanbert_jax.tasks.metrics.question_answering import answer_scores, answer_tokens
from tests.paths import DATA, needs_data


def gold_answers(name):
    """The answers of every third question of a file."""
    articles = json.loads((DATA / name).read_text())["data"]
    return [[answer["text"] for answer in question["answers"]] for article in articles
            for paragraph in article["paragraphs"] for question in paragraph["qas"]][::3]


def mangle(text, others, random):
    """An answer as a model might predict it: right, wrong, truncated, too long, or spelled differently."""
    words = text.split() or [""]
    kind = random.integers(9)
    cut = random.integers(len(words) + 1)
    return [text, "", others[random.integers(len(others))], " ".join(words[:cut]), " ".join(words[cut:]),
            f"the {text.upper()}!", f"{text} {others[random.integers(len(others))]}", f" a {text} an ,",
            " ".join(random.permutation(words))][kind]


@pytest.fixture(scope="module")
def mangled():
    """Correct answers, predicted answers, and null odds, some of them equal."""
    random = np.random.default_rng(0)
    gold = gold_answers("squad-v2.0-train.json")
    others = [text for answers in gold for text in answers]
    given = [mangle((answers or others)[random.integers(len(answers or others))], others, random) for answers in gold]
    null_odds = [round(float(random.normal() + 2 * (not answers)), 2) for answers in gold]
    return gold, given, null_odds


def metrics_of(gold, given, null_odds, threshold):
    """All metrics of SQuAD 2.0, with no answer above the threshold."""
    possible = [bool(answers) for answers in gold]
    answers = ["" if odds > threshold else text for text, odds in zip(given, null_odds)]
    raw, scores = ([answer_scores(right, text, null_answers=True) for right, text in zip(gold, texts)]
                   for texts in (given, answers))
    return (metrics.mean_metrics(scores) | metrics.null_metrics(scores, possible)
            | metrics.threshold_metrics(raw, possible, given, null_odds))


def examples(gold):
    return [types.SimpleNamespace(qas_id=str(i), answers=[{"text": text} for text in answers])
            for i, answers in enumerate(gold)]


@needs_data
def test_scores_of_single_answers_equal_the_official_ones(mangled):
    gold, given, _ = mangled
    for answers, text in zip(gold, given):
        for answer in answers:
            expected = official.compute_exact(answer, text), official.compute_f1(answer, text)
            assert answer_scores([answer], text, null_answers=True) == pytest.approx(expected, abs=1e-12)
            assert answer_tokens(text) == official.get_tokens(text)


@needs_data
@pytest.mark.parametrize("threshold", [-100.0, 0.0, 0.51, 1.5, 100.0])
def test_metrics_equal_the_official_ones(mangled, threshold):
    gold, given, null_odds = mangled
    assert len(gold) > 3_000
    by_id = {str(i): odds for i, odds in enumerate(null_odds)}
    expected = official.squad_evaluate(examples(gold), {str(i): text for i, text in enumerate(given)}, by_id, threshold)
    found = metrics_of(gold, given, null_odds, threshold)
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, rel=1e-12)
    assert found["best_exact"] < found["best_f1"] < 100 and found["best_f1_thresh"] != 0


@needs_data
def test_metrics_of_questions_of_one_kind(mangled):
    for kind, missing in ((True, "NoAns"), (False, "HasAns")):
        gold, given, null_odds = zip(*(row for row in zip(*mangled) if bool(row[0]) == kind))
        by_id = {str(i): odds for i, odds in enumerate(null_odds)}
        expected = official.squad_evaluate(examples(gold), {str(i): text for i, text in enumerate(given)}, by_id, 0.5)
        found = metrics_of(gold, given, null_odds, 0.5)
        assert found == pytest.approx(dict(expected)) and not any(name.startswith(missing) for name in found)


@needs_data
def test_the_best_threshold_gives_the_best_metrics(mangled):
    gold, given, null_odds = mangled
    random = np.random.default_rng(1)
    null_odds = [odds + float(random.uniform(-0.004, 0.004)) for odds in null_odds]  # no two alike
    # To the official algorithm, "the" is an answer, and to the official score it is none.
    given = [text if answer_tokens(text) else "" for text in given]
    best = metrics_of(gold, given, null_odds, 0.0)
    for name in ("exact", "f1"):
        reached = metrics_of(gold, given, null_odds, best[f"best_{name}_thresh"])
        assert reached[name] == pytest.approx(best[f"best_{name}"])
        for other in random.choice(null_odds, 5):
            assert metrics_of(gold, given, null_odds, other)[name] <= reached[name] + 1e-9


def squad_1_f1(gold, predicted):
    """F1 as the scorer of SQuAD 1.1 defines it."""
    gold, predicted = (collections.Counter(official.normalize_answer(text).split()) for text in (gold, predicted))
    common = sum((gold & predicted).values())
    return 2 * common / (sum(gold.values()) + sum(predicted.values())) if common else 0.0


@needs_data
def test_metrics_of_squad_1(mangled):
    random = np.random.default_rng(2)
    gold = gold_answers("squad-v1.1-train.json")
    others = [text for answers in gold for text in answers]
    given = [mangle(answers[random.integers(len(answers))], others, random) for answers in gold]
    exact = [max(official.compute_exact(answer, text) for answer in answers) for answers, text in zip(gold, given)]
    f1 = [max(squad_1_f1(answer, text) for answer in answers) for answers, text in zip(gold, given)]
    found = metrics.mean_metrics([answer_scores(answers, text, False) for answers, text in zip(gold, given)])
    assert found == pytest.approx({"exact": 100 * np.mean(exact), "f1": 100 * np.mean(f1), "total": len(gold)})
    assert 20 < found["exact"] < found["f1"] < 80


@pytest.mark.parametrize("gold, predicted, first, second", [
    (["the"], "The", (1, 0), (1, 1)),  # in 2.0 no answer at all, on either side
    (["the"], "cat", (0, 0), (0, 0)),
    (["the"], "", (1, 0), (1, 1)),
    (["the", "cat"], "a", (1, 0), (0, 0)),  # in 2.0 "the" does not count beside another
    ([], "", (1, 1), (1, 1)),
    ([], "cat", (0, 0), (0, 0)),
    (["The cat's mat"], "cats  MAT.", (1, 1), (1, 1)),
    (["black cat", "cat"], "big black dog", (0, 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)), (0, 0.4)),
    (["cat cat dog"], "cat cat cat", (0, 2 / 3), (0, 2 / 3))])
def test_both_definitions(gold, predicted, first, second):
    assert answer_scores(gold, predicted, null_answers=False) == pytest.approx(first)
    assert answer_scores(gold, predicted, null_answers=True) == pytest.approx(second)


@pytest.mark.parametrize("text, tokens", [
    ("红楼梦", ["红", "楼", "梦"]), ("《红楼梦》。", ["红", "楼", "梦"]), ("2018年5月", ["2018", "年", "5", "月"]),
    ("2018 年", ["2018", "年"]), ("BERT模型, a model", ["bert", "模", "型", "model"]), ("テスト", ["テ", "ス", "ト"]),
    ("カー", ["カ", "ー"]), ("时时、", ["时", "时"]), ("𠀀丁", ["𠀀", "丁"]), ("佐々木", ["佐", "々", "木"]),
    ("abc", ["abc"]), ("——", [])])
def test_unspaced_texts(text, tokens):
    assert answer_tokens(text, unspaced=True) == tokens


def test_spaced_texts_equal_the_official_scorer():
    for text in ("naïve – café", "Dà Yuán (大元)", "元朝", "«Père» …"):
        assert answer_tokens(text) == official.get_tokens(text)


@needs_data
@pytest.mark.parametrize("name, unspaced", [
    ("squad-v1.1-train.json", False), ("xquad.de.json", False), ("xquad.zh.json", True),
    ("cmrc2018-zh-train.json", True)])
def test_unspaced_texts_are_detected_by_their_context(name, unspaced):
    articles = json.loads((DATA / name).read_text())["data"]
    contexts = [paragraph["context"] for article in articles for paragraph in article["paragraphs"]]
    assert {metrics.is_unspaced(context) for context in contexts} == {unspaced}
    assert not metrics.is_unspaced("")


def test_overlap_of_unspaced_texts():
    assert answer_scores(["2018年5月"], "2018年", False, unspaced=True) == (0, pytest.approx(2 / 3))
    assert answer_scores(["《红楼梦》"], "红楼梦", False, unspaced=True) == (1, 1)
    assert answer_scores(["红楼梦"], "水浒传", False, unspaced=True) == (0, 0)


@needs_data
def test_answers_of_ideographs_are_scored_by_character():
    random = np.random.default_rng(3)
    gold = [answers[0] for answers in gold_answers("cmrc2018-zh-train.json") if re.fullmatch("[一-龥]+", answers[0])]
    assert len(gold) > 500
    for text in gold:
        cut = text[random.integers(len(text)):] + gold[random.integers(len(gold))]
        common = sum((collections.Counter(text) & collections.Counter(cut)).values())
        expected = float(text == cut), 2 * common / (len(text) + len(cut))
        assert answer_scores([text], cut, True, unspaced=True) == pytest.approx(expected)
