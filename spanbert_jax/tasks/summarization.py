"""Abstractive summarization: generates summaries of documents."""
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.settings import require, setting
from spanbert_jax.tasks.files.reading import describe_location
from spanbert_jax.tasks.files.summaries import Document, parse_document, read_documents
from spanbert_jax.tasks.metrics.rouge import principal_sentence, rouge_metrics, rouge_words
from spanbert_jax.tasks.protocol import Prediction
from spanbert_jax.tasks.seq2seq import Seq2SeqSettings, Seq2SeqTask

_TOKENS_PER_WORD = 1.5  # about


@dataclasses.dataclass(frozen=True)
class SummarizationSettings(Seq2SeqSettings):
    """Settings of abstractive summarization."""
    no_repeat_ngram: int = setting(3, "N-grams of this size occur only once; 0 allows all.", minimum=0,
                                   overridable=True)
    source: str = setting("document", "Field of the document.", overridable=True)
    target: str = setting("summary", "Field of the summary; '' if there is none: the model then learns to generate a "
                          "document's principal sentence, and so to read and copy.", overridable=True)
    id: str = setting("", "Field of the document's id; '' for 'id', or line numbers without one.", overridable=True)
    group: str = setting("", "Field by which parts are held out; '' if documents are independent.", overridable=True)

    def validate(self, path: str) -> None:
        super().validate(path)
        require(bool(self.source), f"{path}.source", "", "give the name of a field")


class Summarization(Seq2SeqTask):
    """Generates the summary of a document."""
    Settings = SummarizationSettings
    field = "summary"
    metric = "rouge_l"

    def read(self, path: str, issues: DataIssues, with_labels: bool = True) -> Iterator[Document]:
        settings = self.settings
        documents = read_documents(path, settings.source, settings.target, settings.id, settings.group, issues,
                                   with_labels)
        return documents if settings.target or not with_labels else self._with_sentences(documents, issues)

    def _with_sentences(self, documents: Iterable[Document], issues: DataIssues) -> Iterator[Document]:
        """Documents with their principal sentence as summary, of those that fit into source and target length.

        Zhang et al. (2020) remove it from most sources; here it stays, so that the model learns to copy.
        """
        source_words = self.settings.length / _TOKENS_PER_WORD
        target_words = self.settings.target_length / _TOKENS_PER_WORD
        for document in documents:
            texts = document.sentence_texts
            words = [rouge_words(text) for text in texts]
            so_far = itertools.accumulate(map(len, words))
            fit = [number for number, end in enumerate(so_far)
                   if end <= source_words and 0 < len(words[number]) <= target_words]
            if fit:
                chosen = fit[principal_sentence([words[number] for number in fit])]
                yield dataclasses.replace(document, summaries=(texts[chosen],))
            else:
                issues.add("documents without a sentence that fits config.task.length and target_length, left out",
                           describe_location(document))

    def example(self, inputs: str | Mapping[str, Any], location: str, issues: DataIssues) -> Document:
        """From a text, or from a text or list of sentences by the name of its field."""
        return parse_document(inputs, self.settings.source, location, issues)

    def score(self, examples: Sequence[Document], predictions: Sequence[Prediction]) -> dict[str, Any]:
        """ROUGE, and as "lead/..." that of the first sentence alone."""
        references = [example.summaries for example in examples]
        first = ["".join(example.sentence_texts[:1]) for example in examples]
        return (rouge_metrics(references, [prediction[self.field] for prediction in predictions])
                | rouge_metrics(references, first, "lead/"))
