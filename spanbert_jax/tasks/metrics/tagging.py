"""Entities in tag sequences and their metrics, as in seqeval and the CoNLL script."""
from __future__ import annotations

import warnings
from collections.abc import Sequence

Entity = tuple[str, int, int]


def entities(tags: Sequence[str]) -> list[Entity]:
    """Type, first and last word of each entity, by the lenient definition: an I- after O also starts an entity."""
    from seqeval.metrics.sequence_labeling import get_entities  # takes a second to import

    return [tuple(entity) for entity in get_entities(list(tags))]


def tagging_metrics(answers: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """Metrics in percent: an entity is correct if its type and both ends are.

    Args:
      answers, predicted: tags of each sentence.

    Returns:
      "precision", "recall" and "f1" over all entities, 0 if undefined; "f1/TYPE" of each type in answers and
      predictions; "accuracy" of single tags.
    """
    from seqeval.metrics import accuracy_score, classification_report

    answers, predicted = ([list(tags) for tags in sentences]
                          for sentences in (answers, predicted))  # seqeval takes no tuples
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # about means over no type if there is no entity
        report = classification_report(answers, predicted, output_dict=True, zero_division=0)
    averages = {name: report.pop(f"{name} avg") for name in ("micro", "macro", "weighted")}
    metrics = {"precision": averages["micro"]["precision"], "recall": averages["micro"]["recall"],
               "f1": averages["micro"]["f1-score"], "accuracy": accuracy_score(answers, predicted)}
    metrics |= {f"f1/{kind}": row["f1-score"] for kind, row in report.items()}
    return {name: 100 * float(value) for name, value in metrics.items()}
