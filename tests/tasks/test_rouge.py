"""ROUGE against the package and by hand in other scripts, and the greedy oracle against a plain search."""
import unicodedata

import pytest
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files.summaries import read_documents
from spanbert_jax.tasks.metrics.rouge import greedy_oracle, principal_sentence, rouge_metrics, rouge_words
from tests.paths import DATA, needs_data

FILES = {"papers": ("scitldr/SciTLDR-A-dev.jsonl", "source", "target"),
         "packages": ("debian-descriptions.en.jsonl.gz", "document", "summary")}


def documents(name, step, most):
    """Sentences and summaries of a sample of the real documents in ASCII."""
    path, source, target = FILES[name]
    found = []
    for number, document in enumerate(read_documents(str(DATA / path), source, target, "", "", DataIssues())):
        if number % step == 0 and "".join([document.text, *document.summaries]).isascii():
            found.append(([document.text[start:end] for start, end in document.spans], document.summaries))
        if len(found) == most:
            break
    return found


@needs_data
@pytest.mark.parametrize("name", FILES)
def test_english_words_equal_the_packages(name):
    theirs = DefaultTokenizer(use_stemmer=True)
    for sentences, summaries in documents(name, 5, 120):
        for text in (*sentences, *summaries):
            assert rouge_words(text) == theirs.tokenize(text)
    assert rouge_words("") == rouge_words(" -_!\n") == []


@needs_data
def test_metrics_are_means_of_the_packages_best_of_several_references():
    chosen = [(" ".join(sentences[:2]), summaries) for sentences, summaries in documents("papers", 5, 40)]
    assert max(len(summaries) for _, summaries in chosen) > 1
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    scores = [scorer.score_multi(summaries, text) for text, summaries in chosen]
    expected = {f"lead/{ours}": 100 * sum(score[kind].fmeasure for score in scores) / len(scores)
                for ours, kind in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL"))}
    assert rouge_metrics([summaries for _, summaries in chosen], [text for text, _ in chosen], "lead/") == (
        pytest.approx(expected, rel=1e-12))


@pytest.mark.parametrize("text, words", [
    ("Die Häuser, größer als 3 m², ÉTÉ!", ["die", "häuser", "größer", "als", "3", "m2", "été"]),
    ("हिन्दी में लिखा है।", ["हिन्दी", "में", "लिखा", "है"]),
    ("Мама мыла раму", ["мама", "мыла", "раму"]),
    ("한국어 문장입니다.", ["한국어", "문장입니다"]),
    ("使用GPU加速、第2章。", ["使", "用", "gpu", "加", "速", "第", "2", "章"]),
    ("カーネル「々」〇", ["カ", "ー", "ネ", "ル", "々", "〇"]),
    ("ที่นี่ดี ok", ["ที่", "นี่", "ดี", "ok"]),
    ("running a_b don't", ["run", "a", "b", "don", "t"]),
    ("ＡＢＣ １２", ["abc", "12"])])
def test_words_of_other_scripts(text, words):
    assert rouge_words(text) == words
    assert rouge_words(unicodedata.normalize("NFD", text)) == words


@pytest.mark.parametrize("reference, summary, expected", [
    # 4 and 4 characters, 2 of them common, 1 pair of 3 and 3 common.
    ("我爱北京", "我爱上海", (50, 100 / 3, 50)),
    # 3 words and 2; both of these common, and their pair.
    ("Мама мыла раму", "мыла раму", (80, 200 / 3, 80)),
    ("dogs were running", "dog runs", (80, 0, 80)),
    ("a b c d", "d c b a", (100, 0, 25)),
    ("ab", "", (0, 0, 0)), ("", "ab", (0, 0, 0)), ("!", "?", (0, 0, 0))])
def test_metrics_by_hand(reference, summary, expected):
    found = rouge_metrics([[reference]], [summary])
    assert found == pytest.approx(dict(zip(("rouge_1", "rouge_2", "rouge_l"), expected)))


def plain_search(sentences, references, most):
    """The definition, with the package's scores of whole texts."""
    scorer = RougeScorer(["rouge1", "rouge2"], use_stemmer=True)
    chosen, reached = [], 0.0
    for _ in range(most):
        best = None
        for number in sorted(set(range(len(sentences))) - set(chosen)):
            text = " ".join(sentences[other] for other in sorted([*chosen, number]))
            figure = sum(score.fmeasure for score in scorer.score_multi(references, text).values())
            if figure > reached:
                best, reached = number, figure
        if best is None:
            break
        chosen.append(best)
    return sorted(chosen)


@needs_data
@pytest.mark.parametrize("name, step, most", [("papers", 4, 3), ("papers", 9, 10), ("packages", 301, 3)])
def test_the_oracle_equals_a_plain_search(name, step, most):
    found = [(greedy_oracle(sentences, summaries, most), plain_search(sentences, summaries, most))
             for sentences, summaries in documents(name, step, 25)]
    assert [ours for ours, _ in found] == [theirs for _, theirs in found]
    assert {len(ours) for ours, _ in found} >= {1, 2}


@pytest.mark.parametrize("sentences, references, most, expected", [
    (["c d", "a b", "e"], ["a b c d"], 3, [0, 1]),
    (["c d", "a b", "e"], ["a b c d"], 1, [0]),  # the first of two that are as good
    (["a b", "c d", "a b"], ["a b c d"], 3, [0, 1]),  # with "b c" where they meet, which the last would not give
    (["a b", "x", "", "c d"], ["a b c d"], 3, [0, 3]),  # they meet over a sentence that is not chosen
    (["a b", "x y"], ["c d", "x"], 2, [1]),  # of several references the best
    (["x", "y"], ["a b"], 2, []), ([], ["a"], 3, []), (["", "!"], ["a"], 3, []),
    (["北京", "上海"], ["上海"], 2, [1])])
def test_oracles_by_hand(sentences, references, most, expected):
    assert greedy_oracle(sentences, references, most) == expected


@needs_data
@pytest.mark.parametrize("name", FILES)
def test_the_principal_sentence_has_the_packages_highest_rouge_1(name):
    scorer = RougeScorer(["rouge1"], use_stemmer=True)
    chosen = []
    for sentences, _ in documents(name, 5, 60):
        metrics = [round(scorer.score(" ".join(sentences[:number] + sentences[number + 1:]), sentence)
                         ["rouge1"].fmeasure, 9) for number, sentence in enumerate(sentences)]
        chosen.append(principal_sentence([rouge_words(sentence) for sentence in sentences]))
        assert chosen[-1] == metrics.index(max(metrics))
    assert len(set(chosen)) > 3
