"""Summaries that are written."""
from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files.summaries import Document, document_of, read_documents
from spanbert_jax.tasks.metrics.rouge import principal_sentence, rouge_figures, rouge_words
from spanbert_jax.tasks.protocol import Prediction, place_of
from spanbert_jax.tasks.seq2seq import Seq2SeqTask

_FIELDS = ("source", "target", "id", "group")
_PIECES_PER_WORD = 1.5  # about


class Summarization(Seq2SeqTask):
    """Writes the summary of a document."""
    field = "summary"
    metric = "rouge_l"
    free = (*Seq2SeqTask.free, *_FIELDS)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Fields of `config.task`, besides those of `Seq2SeqTask`.

        source, target: names of the fields with document and summary, as `files.summaries.read_documents` has them;
          `target` is "" where there are no summaries: what is learned then is to write a document's principal
          sentence, and by that to read and to copy.
        id: name of that with the document's id; "" for line numbers.
        group: name of that by which held-back parts are made; "" where every document stands on its own.
        """
        return {**super().defaults(), "no_repeat_ngram": 3, "source": "document", "target": "summary", "id": "",
                "group": ""}

    def check_settings(self) -> None:
        super().check_settings()
        if not self.settings["source"]:
            raise UserError("config.task.source is empty: give the name of a field")

    def read(self, path: str, faults: DataIssues, labelled: bool = True) -> Iterator[Document]:
        """Yields the documents of a file, as `files.summaries.read_documents` has it."""
        documents = read_documents(path, *(self.settings[name] for name in _FIELDS), faults, labelled)
        return documents if self.settings["target"] or not labelled else self._with_sentences(documents, faults)

    def _with_sentences(self, documents: Iterable[Document], faults: DataIssues) -> Iterator[Document]:
        """Documents with the principal one of the sentences that can be read, and written, as their summary.

        Zhang et al. (2020) leave most of them out of the source; here it stays, for what is to be learned is to copy.
        """
        words_read, words_written = (self.settings[field] / _PIECES_PER_WORD for field in ("length", "target_length"))
        for document in documents:
            texts = document.sentence_texts
            words = [rouge_words(text) for text in texts]
            so_far = itertools.accumulate(map(len, words))
            fit = [number for number, end in enumerate(so_far)
                   if end <= words_read and 0 < len(words[number]) <= words_written]
            if fit:
                chosen = fit[principal_sentence([words[number] for number in fit])]
                yield dataclasses.replace(document, summaries=(texts[chosen],))
            else:
                faults.add("documents without a sentence that fits config.task.length and target_length, left out",
                           place_of(document))

    def example(self, inputs: str | Mapping[str, Any], where: str, faults: DataIssues) -> Document:
        """Of a text, or of a text or a list of sentences by the name of its field."""
        return document_of(inputs, self.settings["source"], where, faults)

    def score(self, examples: Sequence[Document], predictions: Sequence[Prediction]) -> dict[str, Any]:
        """ROUGE; and what the first sentence alone would have, "lead/rouge_1" and so on."""
        references = [example.summaries for example in examples]
        first = ["".join(example.sentence_texts[:1]) for example in examples]
        return (rouge_figures(references, [prediction[self.field] for prediction in predictions])
                | rouge_figures(references, first, "lead/"))
