"""What the network is used for: fine-tuned tasks, one file each under one protocol, and filling in masked spans."""
from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from spanbert_jax.common.errors import UserError

# Name of a task -> the module here, and the class in it.
TASKS = {
    "question_answering": ("question_answering", "QuestionAnswering"),
    "text_classification": ("text_classification", "TextClassification"),
    "relation_extraction": ("relation_extraction", "RelationExtraction"),
    "token_classification": ("token_classification", "TokenClassification"),
    "extractive_summarization": ("extractive_summarization", "ExtractiveSummarization"),
    "summarization": ("summarization", "Summarization"),
    "translation": ("translation", "Translate"),
}


def task_class(name: str) -> type:
    """The class of a task.

    Raises:
      UserError: when there is none of that name.
    """
    if name not in TASKS:
        raise UserError(f"task {name!r}: allowed are {', '.join(TASKS)}")
    module, attribute = TASKS[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def make_task(name: str, settings: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> Any:
    """A task, as `protocol.Task` describes it.

    Raises:
      UserError: when there is none of that name, or a setting has no meaning.
    """
    return task_class(name)(settings, facts)
