"""Metrics as text: which are in percent. Counts with their nouns."""
import pytest

from spanbert_jax.common.formatting import format_metric, format_plural, is_percent
from spanbert_jax.common.issues import DataIssues, format_issues
from spanbert_jax.tasks.metrics import classification
from spanbert_jax.tasks.metrics.question_answering import mean_metrics, threshold_metrics


@pytest.mark.parametrize("name, value, text", [
    ("accuracy", 100 / 3, "33.33%"), ("f1", 0.3333333, "0.3333%"), ("f1/PER", 0.0, "0%"), ("matthews", -12.5, "-12.5%"),
    ("copy/bleu", 27.25, "27.25%"), ("lead/rouge_l", 100.0, "100%"), ("loss", 0.3333333, "0.3333"),
    ("perplexity", 12345.6, "12,346"), ("closeness", -0.25, "-0.25"), ("examples", 1234, "1,234"),
    ("bleu_signature", "nrefs:1", "nrefs:1")])
def test_scores_have_their_unit(name, value, text):
    assert format_metric(name, value) == text


def test_nouns_follow_their_number():
    assert [format_plural(number, "row") for number in (0, 1, 2, 1234)] == ["0 rows", "1 row", "2 rows", "1,234 rows"]
    assert [format_plural(number, "class") for number in (1, 2)] == ["1 class", "2 classes"]
    issues = DataIssues()
    issues.add("empty files", "a.txt")
    assert format_issues(issues) == ["empty files (1): a.txt"]


def test_percents_of_the_tasks():
    named = (*classification.CLASSIFICATION, *classification.REGRESSION, *classification.MULTI_LABEL,
             *mean_metrics([(1.0, 1.0)], "NoAns_"))
    assert [name for name in named if not is_percent(name)] == ["NoAns_total"]
    thresholds = threshold_metrics([(1.0, 0.5)], [True], ["a"], [0.0])
    assert [name for name in thresholds if not is_percent(name)] == ["best_exact_thresh", "best_f1_thresh"]
