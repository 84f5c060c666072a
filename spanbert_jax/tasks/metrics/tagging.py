"""Entities in sequences of tags, and figures of them, as seqeval and the CoNLL script read them."""
from __future__ import annotations

import warnings
from collections.abc import Sequence

Entity = tuple[str, int, int]


def entities(tags: Sequence[str]) -> list[Entity]:
    """Type, first and last word of each entity, by the lenient definition: of I- after O an entity begins, too."""
    from seqeval.metrics.sequence_labeling import get_entities  # takes a second to import

    return [tuple(entity) for entity in get_entities(list(tags))]


def tagging_metrics(answers: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """Figures in percent: an entity is right where its type and both its ends are.

    Args:
      answers, predicted: tags of each sentence.

    Returns:
      "precision", "recall" and "f1" over all entities, 0 where there is none to count; "f1/TYPE" of each type among
      answers and predictions; "accuracy", of single tags.
    """
    from seqeval.metrics import accuracy_score, classification_report

    answers, predicted = ([list(tags) for tags in sentences] for sentences in (answers, predicted))  # no tuples there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means over no type, where there is no entity at all
        report = classification_report(answers, predicted, output_dict=True, zero_division=0)
    averages = {name: report.pop(f"{name} avg") for name in ("micro", "macro", "weighted")}
    figures = {"precision": averages["micro"]["precision"], "recall": averages["micro"]["recall"],
               "f1": averages["micro"]["f1-score"], "accuracy": accuracy_score(answers, predicted)}
    figures |= {f"f1/{kind}": row["f1-score"] for kind, row in report.items()}
    return {name: 100 * float(figure) for name, figure in figures.items()}
