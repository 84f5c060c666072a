"""Extractive summarization: a summary of the document's own most likely summary sentences."""
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import jax
import numpy as np
from scipy.special import expit
from tokenizers import Tokenizer

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.settings import require, setting
from spanbert_jax.model.losses import LossSums, cross_entropy, weighted_sums
from spanbert_jax.tasks.features import FeatureBuilder, Features
from spanbert_jax.tasks.files.reading import describe_location
from spanbert_jax.tasks.files.summaries import Document, parse_document, read_documents
from spanbert_jax.tasks.metrics.rouge import greedy_oracle, rouge_metrics
from spanbert_jax.tasks.protocol import NOT_FINITE, FittedState, Prediction, Task, TaskSettings
from spanbert_jax.tasks.tokenizing import encode_texts
from spanbert_jax.text import SpecialIds, special_ids


@dataclasses.dataclass(frozen=True)
class ExtractiveSummarizationSettings(TaskSettings):
    """Settings of extractive summarization."""
    source: str = setting("document", "Field of the document.")
    target: str = setting("summary", "Field of the summary.")
    id: str = setting("", "Field of the document's id; '' for 'id', or line numbers without one.")
    group: str = setting("", "Field by which parts are held out; '' if documents are independent.")
    sentences: int = setting(3, "Maximum number of sentences; the best number up to it is chosen on dev examples.",
                             minimum=1)

    def validate(self, path: str) -> None:
        super().validate(path)
        for name in ("source", "target"):
            require(bool(getattr(self, name)), f"{path}.{name}", "", "give the name of a field")


@dataclasses.dataclass(frozen=True)
class ExtractiveSummarizationState(FittedState):
    """Fitted state of extractive summarization."""
    sentences: int | None = None  # number of sentences chosen by `tune`; None before


class ExtractiveSummarization(Task[Document]):
    """Classifies each sentence, in the layout of BertSum (Liu 2019): [CLS] before and [SEP] after each sentence.

    Changed on purpose: BertSum classifies the output at a sentence's [CLS]; here all tokens of the sentence are
    classified and averaged, which learns from far fewer documents.
    """
    Settings, Fitted = ExtractiveSummarizationSettings, ExtractiveSummarizationState
    head = "token_classification"
    metric = "rouge_l"
    label_fields = ("label", "label_weight")
    labels = ("out", "in")

    @property
    def sentences(self) -> int:
        """Maximum number of sentences in a summary."""
        return self.fitted.sentences or self.settings.sentences

    def read(self, path: str, issues: DataIssues, with_labels: bool = True) -> Iterator[Document]:
        settings = self.settings
        return read_documents(path, settings.source, settings.target, settings.id, settings.group, issues, with_labels)

    def example(self, inputs: str | Mapping[str, Any], location: str, issues: DataIssues) -> Document:
        return parse_document(inputs, self.settings.source, location, issues)

    def features(self, examples: Sequence[Document], tokenizer: Tokenizer, issues: DataIssues,
                 with_labels: bool = True) -> Features:
        """[CLS] sentence [SEP] [CLS] sentence [SEP] ..., token types alternately 0 and 1, as in BertSum.

        A document that is too long becomes several features, see `sentence_windows`. A sentence that is too long for a
        feature is truncated at the end; one that the tokenizer maps to no token is left out and never chosen. A
        document without sentences is [CLS] [SEP].

        Token columns: "sentence", int32, the number of the sentence in the feature where it is predicted, else -1;
        "label", int32, 1 there for sentences of `metrics.rouge.greedy_oracle`; "label_weight", float32, 1 / (number of
        the sentence's tokens) there and 0 elsewhere.
        """
        special, builder = special_ids(tokenizer), FeatureBuilder()
        texts = [example.sentence_texts for example in examples]
        encodings = encode_texts((sentence for sentences in texts for sentence in sentences), tokenizer,
                                 self.settings.length)
        for number, (example, sentences) in enumerate(zip(examples, texts, strict=True)):
            tokens = [next(encodings).ids for _ in sentences]
            labels = self._labels(example, sentences, issues) if with_labels else None
            self._add_windows(builder, number, describe_location(example), tokens, labels, special, issues)
        dtypes = {"label": np.int32, "label_weight": np.float32} if with_labels else {}
        return builder.build(token_columns={"sentence": np.int32, **dtypes})

    def _labels(self, example: Document, texts: Sequence[str], issues: DataIssues) -> np.ndarray:
        """1 for each sentence to choose, 0 for others, and a final 0 for tokens of no sentence."""
        chosen = greedy_oracle(texts, example.summaries, self.settings.sentences)
        if not chosen:
            issues.add("documents that share no word with their summary, trained with no sentence to choose",
                       describe_location(example))
        labels = np.zeros(len(texts) + 1, np.int32)
        labels[chosen] = 1
        return labels

    def _add_windows(self, builder: FeatureBuilder, number: int, location: str, tokens: Sequence[Sequence[int]],
                     labels: np.ndarray | None, special: SpecialIds, issues: DataIssues) -> None:
        """Adds the features of document `number` from the tokens of its sentences."""
        room = self.settings.length - 2
        for issue, count in (
                ("sentences longer than config.task.length, truncated at the end",
                 sum(len(ids) > room for ids in tokens)),
                ("sentences that the tokenizer maps to no token, never chosen", sum(not ids for ids in tokens))):
            if count:
                issues.add(issue, location, count)
        read = [sentence for sentence, ids in enumerate(tokens) if ids] or [-1]
        blocks = [[special.cls, *(tokens[sentence][:room] if sentence >= 0 else ()), special.sep] for sentence in read]
        windows, window_of = sentence_windows([len(block) for block in blocks], self.settings.length)
        for window, (first, end) in enumerate(windows):
            sizes = np.array([len(block) for block in blocks[first:end]])
            sentence = np.repeat(np.where(window_of[first:end] == window, read[first:end], -1), sizes)
            shares = np.where(sentence >= 0, 1 / np.repeat(sizes, sizes), 0)
            label_columns = {} if labels is None else {"label": labels[sentence], "label_weight": shares}
            builder.add(number, np.concatenate(blocks[first:end]), np.repeat(np.arange(end - first) % 2, sizes),
                     token_columns={"sentence": sentence, **label_columns})

    def loss(self, outputs: Any, batch: Mapping[str, jax.Array]) -> LossSums:
        """Cross-entropy of choosing each sentence or not, averaged over its tokens where it is predicted."""
        return weighted_sums(*cross_entropy(outputs.logits, batch["label"]), batch["label_weight"])

    def decode(self, examples: Sequence[Document], features: Features, outputs: Mapping[str, Any]) -> list[Prediction]:
        """{"id", "summary", "sentences", "scores"}: the most likely sentences joined by spaces, in the document's
        order.

        Each of "sentences" is {"sentence", "start", "end", "text", "score"}: its number from 0, its characters
        [start, end) in the text, and its probability, from its tokens' mean log odds. "scores" are the probabilities of
        all sentences, 0 for those without tokens. "note" says why no sentence could be chosen.
        """
        at = np.flatnonzero(features.token_columns["sentence"] >= 0)
        logits = np.asarray(outputs["logits"])[at].astype(np.float64)
        example_of = np.repeat(features.example, features.lengths)[at]
        sentences = features.token_columns["sentence"][at]
        first = np.flatnonzero(np.diff(example_of, prepend=-1) | np.diff(sentences, prepend=-1))
        odds = np.add.reduceat(logits[:, 1] - logits[:, 0], first) / np.diff(first, append=len(at))
        probabilities, sentences = expit(odds), sentences[first]
        bounds = np.searchsorted(example_of[first], np.arange(len(examples) + 1))
        return [self._prediction(example, sentences[first:end], probabilities[first:end])
                for example, first, end in zip(examples, bounds[:-1], bounds[1:], strict=True)]

    def _prediction(self, example: Document, read: np.ndarray, probabilities: np.ndarray) -> Prediction:
        spans = example.spans
        by_sentence = np.zeros(len(spans))
        by_sentence[read] = np.nan_to_num(probabilities)
        scores = by_sentence.tolist()
        sentences: list[dict[str, Any]] = [
            {"sentence": number, "start": start, "end": end, "text": example.text[start:end], "score": scores[number]}
            for number in best_sentences(scores, self.sentences) for start, end in [spans[number]]]
        prediction = {"id": example.id, "summary": " ".join(sentence["text"] for sentence in sentences),
                      "sentences": sentences, "scores": scores}
        if not len(read):
            prediction["note"] = "no sentence has a token"
        elif np.isnan(probabilities).any():
            prediction["note"] = NOT_FINITE
        return prediction

    def tune(self, examples: Sequence[Document], predictions: Sequence[Prediction]) -> Self:
        """Chooses the number of sentences, up to the setting, with the best metric; the smallest of several."""
        references = [example.summaries for example in examples]
        scores = {}
        for count in range(1, self.settings.sentences + 1):
            summaries = [_joined(example, best_sentences(prediction["scores"], count))
                         for example, prediction in zip(examples, predictions, strict=True)]
            scores[count] = rouge_metrics(references, summaries)[self.metric]
        return self.with_fitted(sentences=max(scores, key=lambda count: scores[count]))

    def score(self, examples: Sequence[Document], predictions: Sequence[Prediction]) -> dict[str, float]:
        """ROUGE, and as "lead/..." that of the same number of first sentences."""
        references = [example.summaries for example in examples]
        lead = [_joined(example, range(self.sentences)) for example in examples]
        return (rouge_metrics(references, [prediction["summary"] for prediction in predictions])
                | rouge_metrics(references, lead, "lead/"))

    def files(self, examples: Sequence[Document], predictions: Sequence[Prediction]) -> dict[str, str]:
        """"summaries.txt": one summary per line."""
        return {"summaries.txt": "".join(f"{' '.join(prediction['summary'].split())}\n" for prediction in predictions)}


def sentence_windows(sizes: Sequence[int], room: int) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Windows of whole sentences, and for each sentence the window with the largest min(left context, right context).

    A window holds as many sentences as fit. The next one starts at its middle, or later if no further sentence would
    fit otherwise; the last one starts as early as possible.

    Args:
      sizes: tokens of each of n sentences, at most `room`.
      room: maximum number of tokens per window.

    Returns:
      First sentence of each window and the one after its last; [n] number of each sentence's window.
    """
    ends = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])  # tokens before each sentence, and in total
    count = len(sizes)
    last = np.searchsorted(ends, ends + room, "right") - 1  # end of the window that starts with each sentence
    first = np.searchsorted(ends, ends - room)  # earliest start of a window that ends before each sentence
    windows = [(0, int(last[0]))]
    while windows[-1][1] < count:
        begin, end = windows[-1]
        begin = max((begin + end + 1) // 2, int(first[end + 1]))
        windows.append((begin, int(last[begin])))
    windows[-1] = (int(first[count]), count)
    best, most = np.zeros(count, np.int64), np.full(count, -1)
    for number, (begin, end) in enumerate(windows):
        context = np.minimum(ends[begin:end] - ends[begin], ends[end] - ends[begin + 1:end + 1])
        better = context > most[begin:end]
        best[begin:end][better], most[begin:end][better] = number, context[better]
    return windows, best


def best_sentences(scores: Sequence[float], count: int) -> list[int]:
    """Ascending numbers of the sentences with the highest positive scores; ties go to the first."""
    ranked = sorted((number for number, score in enumerate(scores) if score > 0), key=lambda number: -scores[number])
    return sorted(ranked[:count])


def _joined(example: Document, numbers: Iterable[int]) -> str:
    """The sentences with given numbers, as far as they exist."""
    texts = example.sentence_texts
    return " ".join(texts[number] for number in numbers if number < len(texts))
