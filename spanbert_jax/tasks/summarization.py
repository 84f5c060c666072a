"""Summaries that are written."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spanbert_jax.corpus.documents import Faults
from spanbert_jax.errors import UserError
from spanbert_jax.tasks.files.summaries import Document, document_of, read_documents
from spanbert_jax.tasks.metrics.rouge import rouge_figures
from spanbert_jax.tasks.protocol import Prediction
from spanbert_jax.tasks.writing import Writing

_FIELDS = ("source", "target", "id", "group")


class Summarization(Writing):
    """Writes the summary of a document."""
    field = "summary"
    metric = "rouge_l"
    free = (*Writing.free, *_FIELDS)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Fields of `config.task`, besides those of `Writing`.

        source, target: names of the fields with document and summary, as `files.summaries.read_documents` has them.
        id: name of that with the document's id; "" for line numbers.
        group: name of that by which held-back parts are made; "" where every document stands on its own.
        """
        return {**super().defaults(), "no_repeat_ngram": 3, "source": "document", "target": "summary", "id": "",
                "group": ""}

    def check_settings(self) -> None:
        super().check_settings()
        for field in ("source", "target"):
            if not self.settings[field]:
                raise UserError(f"config.task.{field} is empty: give the name of a field")

    def read(self, path: str, faults: Faults, labelled: bool = True) -> Iterator[Document]:
        """Yields the documents of a file, as `files.summaries.read_documents` has it."""
        return read_documents(path, *(self.settings[name] for name in _FIELDS), faults, labelled)

    def example(self, inputs: str | Mapping[str, Any], where: str, faults: Faults) -> Document:
        """Of a text, or of a text or a list of sentences by the name of its field."""
        return document_of(inputs, self.settings["source"], where, faults)

    def score(self, examples: Sequence[Document], predictions: Sequence[Prediction]) -> dict[str, Any]:
        """ROUGE; and what the first sentence alone would have, "lead/rouge_1" and so on."""
        references = [example.summaries for example in examples]
        first = [example.text[slice(*example.spans[0])] if example.spans else "" for example in examples]
        return (rouge_figures(references, [prediction[self.field] for prediction in predictions])
                | rouge_figures(references, first, "lead/"))
