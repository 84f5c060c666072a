"""Heads, one file each. A further one is one file with a `Head` and a name in `HEADS`."""
from __future__ import annotations

from collections.abc import Sequence

from spanbert_jax.common.registry import Registry
from spanbert_jax.model.heads.base import DEFAULT_LABELS, EncoderOnly, Head

_HERE = "spanbert_jax.model.heads"
HEADS: Registry[type[Head]] = Registry("head", "heads", {
    "pretraining": f"{_HERE}.pretraining:PretrainingHeads", "masked_lm": f"{_HERE}.masked_tokens:MaskedLm",
    "question_answering": f"{_HERE}.question_answering:QuestionAnswering",
    "sequence_classification": f"{_HERE}.sequence_classification:SequenceClassification",
    "token_classification": f"{_HERE}.token_classification:TokenClassification"})


def head_names() -> tuple[str | None, ...]:
    """All names that `make_head` takes."""
    return (None, *HEADS.names())


def make_head(name: str | None, labels: Sequence[str] | None = None) -> Head:
    """A head by name with its defaults; None gives the encoder alone.

    Args:
      name: one of `head_names()`.
      labels: names of the classes, for a head that classifies; two if not given.

    Raises:
      UserError: there is no such head.
    """
    head = EncoderOnly() if name is None else HEADS.get(name)()
    return head.with_labels(labels or DEFAULT_LABELS)
