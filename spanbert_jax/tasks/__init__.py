"""Tasks that a pretrained encoder is fine-tuned for, one file each under one protocol, and filling in masked spans."""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spanbert_jax.common.registry import Registry
from spanbert_jax.common.settings import from_dict

if TYPE_CHECKING:
    from spanbert_jax.tasks.protocol import Task

TASKS: Registry[type[Task]] = Registry("task", "tasks", {
    name: f"{__name__}.{target}" for name, target in {
        "question_answering": "question_answering:QuestionAnswering",
        "text_classification": "text_classification:TextClassification",
        "relation_extraction": "relation_extraction:RelationExtraction",
        "token_classification": "token_classification:TokenClassification",
        "coreference": "coreference:Coreference",
        "extractive_summarization": "extractive_summarization:ExtractiveSummarization",
        "summarization": "summarization:Summarization",
        "translation": "translation:TranslationTask"}.items()})


def make_task(name: str, settings: Mapping[str, Any], fitted: Mapping[str, Any] | None = None) -> Task:
    """A task by name, settings and fitted state as in JSON. Raises UserError if a name or value is not allowed."""
    cls = TASKS.get(name)
    return cls(from_dict(cls.Settings, settings, "config.task"), from_dict(cls.Fitted, fitted or {}, "fitted"))
