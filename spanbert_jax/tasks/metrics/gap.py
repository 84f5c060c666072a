"""GAP's scores: a pronoun and two names, F1 by the gender of the pronoun (Webster et al., 2018)."""
from collections.abc import Sequence

Links = tuple[bool, bool]  # whether the pronoun means name A, and name B


def gap_metrics(genders: Sequence[str], truth: Sequence[Links], predicted: Sequence[Links]) -> dict[str, float]:
    """Scores as of GAP's official scorer: each of the two names of an example is one decision.

    Args:
      genders: of the pronouns of the examples, "masculine" or "feminine".
      truth, predicted: links of each.

    Returns:
      "precision", "recall" and "f1" in percent, 0 if undefined; the same with "masculine_" and "feminine_" before the
      name, over the examples with such a pronoun; and "bias", the feminine F1 divided by the masculine one, which is
      left out if either is 0.
    """
    decisions: dict[str, list[tuple[bool, bool]]] = {"": [], "masculine_": [], "feminine_": []}
    for gender, links, guesses in zip(genders, truth, predicted, strict=True):
        pairs = list(zip(links, guesses, strict=True))
        decisions[""] += pairs
        decisions[f"{gender}_"] += pairs
    metrics = {f"{group}{name}": value for group, pairs in decisions.items() for name, value in _scores(pairs).items()}
    if metrics["masculine_f1"] and metrics["feminine_f1"]:
        metrics["bias"] = metrics["feminine_f1"] / metrics["masculine_f1"]
    return metrics


def _scores(decisions: Sequence[tuple[bool, bool]]) -> dict[str, float]:
    """Scores of pairs of truth and prediction."""
    found = sum(right and guess for right, guess in decisions)
    expected, guessed = sum(right for right, _ in decisions), sum(guess for _, guess in decisions)
    # F1 is 2PR / (P + R) in terms of the counts, which is also valid for 0.
    return {"precision": _percent(found, guessed), "recall": _percent(found, expected),
            "f1": _percent(2 * found, expected + guessed)}


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / max(whole, 1)
