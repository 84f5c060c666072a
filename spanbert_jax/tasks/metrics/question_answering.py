"""SQuAD's official exact match and F1, and thresholds for "no answer"."""
import collections
import re
import string
import unicodedata
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
# Ideographs, kana, and the marks that repeat or lengthen them.
_CJK = re.compile("([\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
                  "\U00020000-\U0003ffff])")

Scores = tuple[float, float]  # exact match and F1, 0 to 1


def is_unspaced(text: str) -> bool:
    """Whether a text is in a script without spaces: it has more ideographs and kana than words."""
    return len(_CJK.findall(text)) > len(text.split())


def answer_tokens(text: str, unspaced: bool = False) -> list[str]:
    """Words of an answer in lower case, without ASCII punctuation and English articles, as in the official scripts.

    Args:
      unspaced: the answer is from a text without spaces, where the official scripts would treat a sentence as one word.
        Each ideograph and kana is then a token, letters and digits between them are words, and punctuation of all
        scripts is removed, as for CMRC 2018. (CMRC's F1 uses the longest common sequence, this one common tokens.)
    """
    text = text.lower().translate(_NO_PUNCTUATION)
    if unspaced:
        text = "".join(c for c in _CJK.sub(r" \1 ", text) if unicodedata.category(c)[0] != "P")
    return _ARTICLES.sub(" ", text).split()


def answer_scores(gold: Sequence[str], predicted: str, null_answers: bool, unspaced: bool = False) -> Scores:
    """The scores of an answer against the best correct one.

    Args:
      gold: correct texts; empty if the question is impossible, where the empty text is correct.
      null_answers: use the definition of SQuAD 2.0, which differs from 1.1 in answers without words: they count as no
        answer, and two of them agree.
      unspaced: as for `answer_tokens`.
    """
    found = answer_tokens(predicted, unspaced)
    right = [answer_tokens(text, unspaced) for text in gold]
    if null_answers:
        right = list(filter(None, right))
    null_answers = null_answers or not right
    right = right or [[]]
    return (max(float(tokens == found) for tokens in right), max(_f1(tokens, found, null_answers) for tokens in right))


def _f1(gold: list[str], predicted: list[str], null_answers: bool) -> float:
    common = sum((collections.Counter(gold) & collections.Counter(predicted)).values())
    if not common:
        return float(null_answers and gold == predicted)
    precision, recall = common / len(predicted), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def mean_metrics(scores: Sequence[Scores], prefix: str = "") -> dict[str, float]:
    """Means in percent, "exact" and "f1", and the number of questions, "total"; empty without questions."""
    if not scores:
        return {}
    exact, f1 = (100.0 * sum(values) / len(scores) for values in zip(*scores))
    return {f"{prefix}exact": exact, f"{prefix}f1": f1, f"{prefix}total": len(scores)}


def null_metrics(scores: Sequence[Scores], possible: Sequence[bool]) -> dict[str, float]:
    """Means over the questions with answers (`possible`), "HasAns_...", and without, "NoAns_...", if there are any."""
    pairs = list(zip(scores, possible, strict=True))
    return (mean_metrics([score for score, has_answer in pairs if has_answer], "HasAns_")
            | mean_metrics([score for score, has_answer in pairs if not has_answer], "NoAns_"))


def threshold_metrics(scores: Sequence[Scores], possible: Sequence[bool], best: Sequence[str],
                      null_odds: Sequence[float]) -> dict[str, float]:
    """Scores with the best thresholds, in percent: "best_exact", "best_exact_thresh", "best_f1", "best_f1_thresh".

    Args:
      scores: of the best nonempty answer to each question.
      possible: whether each question has answers.
      best: these answers.
      null_odds: score of "no answer" minus that of the best answer; above the threshold, "no answer" is predicted.
    """
    metrics = {}
    for name, values in zip(("exact", "f1"), zip(*scores)):
        metrics[f"best_{name}"], metrics[f"best_{name}_thresh"] = _best_threshold(values, possible, best, null_odds)
    return metrics


def _best_threshold(scores: Sequence[float], possible: Sequence[bool], best: Sequence[str],
                    null_odds: Sequence[float]) -> tuple[float, float]:
    """The official algorithm: answers one more question at a time, in order of null_odds."""
    total = reached = float(sum(not has_answer for has_answer in possible))
    threshold = 0.0
    for i in sorted(range(len(scores)), key=null_odds.__getitem__):
        total += scores[i] if possible[i] else -bool(best[i])
        if total > reached:
            reached, threshold = total, null_odds[i]
    return 100.0 * reached / len(scores), threshold
