"""Summaries that are made of a document's own sentences, of those that read most like what a summary says."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from scipy.special import expit
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.model import Outputs
from spanbert_jax.model.losses import LossSums, cross_entropy, weighted_sums
from spanbert_jax.tasks.features import FeatureList, Features
from spanbert_jax.tasks.files.summaries import Document, document_of, read_documents
from spanbert_jax.tasks.metrics.rouge import greedy_oracle, rouge_figures
from spanbert_jax.tasks.protocol import NOT_FINITE, Prediction, Task, place_of
from spanbert_jax.text import SpecialIds, special_ids, special_tokens_as_text

_BATCH = 256  # documents that are tokenised at once
_SHORTEST = 3  # [CLS], a piece, [SEP]


class ExtractiveSummarization(Task):
    """Classifies each sentence in the layout of BertSum (Liu 2019), with a [CLS] before and a [SEP] behind it.

    Changed on purpose: there the output at the [CLS] speaks for its sentence; here each piece does, and the sentence is
    as good as they are on average, which takes far fewer documents to learn.

    Facts: "sentences", how many are chosen at most, once that was found out on dev examples.
    """
    head = "token_classification"
    metric = "rouge_l"
    targets = ("label", "label_weight")
    labels = ("out", "in")

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Fields of `config.task`.

        source, target, id, group: names of the fields of documents, summaries, ids and groups, as
          `files.summaries.read_documents` takes them.
        sentences: to choose at most; how many is best, up to so many, is found out on dev examples.
        """
        return {"source": "document", "target": "summary", "id": "", "group": "", "sentences": 3}

    def check_settings(self) -> None:
        settings = self.settings
        for field in ("source", "target"):
            if not settings[field]:
                raise UserError(f"config.task.{field} is empty: give the name of a field")
        if settings["sentences"] < 1:
            raise UserError(f"config.task.sentences is {settings['sentences']}: it must be at least 1")
        if settings.get("length", _SHORTEST) < _SHORTEST:
            raise UserError(f"config.task.length is {settings['length']}: at least {_SHORTEST} are needed, for [CLS], "
                            "a piece and [SEP]")

    @property
    def sentences(self) -> int:
        """How many are chosen at most."""
        return self.facts.get("sentences", self.settings["sentences"])

    def read(self, path: str, faults: DataIssues, labelled: bool = True) -> Iterator[Document]:
        """As `files.summaries.read_documents` has it."""
        names = (self.settings[field] for field in ("source", "target", "id", "group"))
        return read_documents(path, *names, faults, labelled)

    def example(self, inputs: str | Mapping[str, Any], where: str, faults: DataIssues) -> Document:
        """As `files.summaries.document_of` has it."""
        return document_of(inputs, self.settings["source"], where, faults)

    def features(self, examples: Sequence[Document], tokenizer: Tokenizer, faults: DataIssues,
                 labelled: bool = True) -> Features:
        """[CLS] sentence [SEP] [CLS] sentence [SEP] ..., token types 0 and 1 in turn, as BertSum has it.

        A document that is too long becomes several features, as `sentence_windows` has it. A sentence that is too long
        for one is cut at its end; one that the tokenizer makes nothing of is left out, and is never chosen. A document
        without any is [CLS] [SEP].

        Pieces: "sentence", int32, the number of the sentence there where it counts, else -1; "label", int32, 1 there
        for those of `metrics.rouge.greedy_oracle`, and "label_weight", float32, the piece's share of its sentence there
        and 0 elsewhere.
        """
        special, plain, made = special_ids(tokenizer), special_tokens_as_text(tokenizer), FeatureList()
        for start in range(0, len(examples), _BATCH):
            batch = examples[start:start + _BATCH]
            texts = [example.sentence_texts for example in batch]
            encodings = iter(plain.encode_batch([text for of_one in texts for text in of_one],
                                                add_special_tokens=False))
            for number, (example, of_one) in enumerate(zip(batch, texts, strict=True), start):
                pieces = [next(encodings).ids for _ in of_one]
                labels = self._labels(example, of_one, faults) if labelled else None
                self._add_windows(made, number, place_of(example), pieces, labels, special, faults)
        dtypes = {"label": np.int32, "label_weight": np.float32} if labelled else {}
        return made.features(pieces={"sentence": np.int32, **dtypes})

    def _labels(self, example: Document, texts: Sequence[str], faults: DataIssues) -> np.ndarray:
        """1 for each sentence to choose, 0 for each other, and 0 at the end for what is no sentence."""
        chosen = greedy_oracle(texts, example.summaries, self.settings["sentences"])
        if not chosen:
            faults.add("documents that share no word with their summary, trained on with no sentence to choose",
                       place_of(example))
        labels = np.zeros(len(texts) + 1, np.int32)
        labels[chosen] = 1
        return labels

    def _add_windows(self, made: FeatureList, number: int, place: str, pieces: Sequence[Sequence[int]],
                     labels: np.ndarray | None, special: SpecialIds, faults: DataIssues) -> None:
        """Adds the features of a document, whose number is given, from the pieces of its sentences."""
        room = self.settings["length"] - 2
        for fault, count in (
                ("sentences longer than config.task.length, cut at the end", sum(len(ids) > room for ids in pieces)),
                ("sentences that the tokenizer makes nothing of, never chosen", sum(not ids for ids in pieces))):
            if count:
                faults.add(fault, place, count)
        read = [sentence for sentence, ids in enumerate(pieces) if ids] or [-1]
        blocks = [[special.cls, *(pieces[sentence][:room] if sentence >= 0 else ()), special.sep] for sentence in read]
        windows, counts_in = sentence_windows([len(block) for block in blocks], self.settings["length"])
        for window, (first, end) in enumerate(windows):
            sizes = np.array([len(block) for block in blocks[first:end]])
            sentence = np.repeat(np.where(counts_in[first:end] == window, read[first:end], -1), sizes)
            shares = np.where(sentence >= 0, 1 / np.repeat(sizes, sizes), 0)
            targets = {} if labels is None else {"label": labels[sentence], "label_weight": shares}
            made.add(number, np.concatenate(blocks[first:end]), np.repeat(np.arange(end - first) % 2, sizes),
                     pieces={"sentence": sentence, **targets})

    def loss(self, outputs: Outputs, batch: Mapping[str, jax.Array]) -> LossSums:
        """Cross-entropy of choosing or not choosing, on average over the pieces of each sentence where it counts."""
        return weighted_sums(*cross_entropy(outputs.logits, batch["label"]), batch["label_weight"])

    def decode(self, examples: Sequence[Document], features: Features,
               outputs: Mapping[str, Any]) -> list[Prediction]:
        """{"id", "summary", "sentences", "scores"}: the likeliest sentences joined by spaces, in the document's order.

        Each of "sentences" is {"sentence", "start", "end", "text", "score"}: its number, counted from 0, its characters
        in the text, the end not included, and its probability, by its pieces' mean log odds. "scores" are those of all
        the document's sentences, 0 where one could not be read. "note" says why nothing could be chosen.
        """
        at = np.flatnonzero(features.pieces["sentence"] >= 0)
        logits = np.asarray(outputs["logits"])[at].astype(np.float64)
        of, sentences = np.repeat(features.example, features.lengths)[at], features.pieces["sentence"][at]
        first = np.flatnonzero(np.diff(of, prepend=-1) | np.diff(sentences, prepend=-1))
        odds = np.add.reduceat(logits[:, 1] - logits[:, 0], first) / np.diff(first, append=len(at))
        probabilities, sentences = expit(odds), sentences[first]
        bounds = np.searchsorted(of[first], np.arange(len(examples) + 1))
        return [self._prediction(example, sentences[first:end], probabilities[first:end])
                for example, first, end in zip(examples, bounds[:-1], bounds[1:], strict=True)]

    def _prediction(self, example: Document, read: np.ndarray, probabilities: np.ndarray) -> Prediction:
        spans = example.spans
        by_sentence = np.zeros(len(spans))
        by_sentence[read] = np.nan_to_num(probabilities)
        scores, sentences = by_sentence.tolist(), []
        for number in best_sentences(scores, self.sentences):
            start, end = spans[number]
            sentences.append({"sentence": number, "start": start, "end": end, "text": example.text[start:end],
                              "score": scores[number]})
        prediction = {"id": example.id, "summary": " ".join(sentence["text"] for sentence in sentences),
                      "sentences": sentences, "scores": scores}
        if not len(read):
            prediction["note"] = "there is no sentence that can be read"
        elif np.isnan(probabilities).any():
            prediction["note"] = NOT_FINITE
        return prediction

    def tune(self, examples: Sequence[Document], predictions: Sequence[Prediction]) -> None:
        """Keeps how many sentences, up to the setting, give the best figure; the fewest of several."""
        references = [example.summaries for example in examples]
        figures = {}
        for count in range(1, self.settings["sentences"] + 1):
            summaries = [_joined(example, best_sentences(prediction["scores"], count))
                         for example, prediction in zip(examples, predictions, strict=True)]
            figures[count] = rouge_figures(references, summaries)[self.metric]
        self.facts["sentences"] = max(figures, key=lambda count: figures[count])

    def score(self, examples: Sequence[Document], predictions: Sequence[Prediction]) -> dict[str, float]:
        """As `metrics.rouge.rouge_figures` has it, and under "lead/" of the first sentences, as many as are chosen."""
        references = [example.summaries for example in examples]
        lead = [_joined(example, range(self.sentences)) for example in examples]
        return (rouge_figures(references, [prediction["summary"] for prediction in predictions])
                | rouge_figures(references, lead, "lead/"))

    def files(self, examples: Sequence[Document], predictions: Sequence[Prediction]) -> dict[str, str]:
        """"summaries.txt": one a line."""
        return {"summaries.txt": "".join(f"{' '.join(prediction['summary'].split())}\n" for prediction in predictions)}


def sentence_windows(sizes: Sequence[int], room: int) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Windows of whole sentences, and the one in which each sentence has most context on the side where it has less.

    A window holds as many sentences as fit. The next begins in its middle, or later where no further sentence would fit
    otherwise; the last one begins as early as it can.

    Args:
      sizes: pieces of each of n sentences, `room` at most.
      room: pieces in a window at most.

    Returns:
      First sentence of each window and the one after its last, and [n] the number of a window.
    """
    ends = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])  # pieces before each sentence, and all
    count = len(sizes)
    last = np.searchsorted(ends, ends + room, "right") - 1  # where a window ends that begins with a sentence
    first = np.searchsorted(ends, ends - room)  # where one begins at the earliest that ends before a sentence
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
    """The numbers, ascending, of the sentences with the highest scores; none with a score of 0, and of several with the
    same score the first."""
    ranked = sorted((number for number, cross_entropy in enumerate(scores) if cross_entropy > 0), key=lambda number: -scores[number])
    return sorted(ranked[:count])


def _joined(example: Document, numbers: Iterable[int]) -> str:
    """The sentences of some numbers, those of them that there are."""
    texts = example.sentence_texts
    return " ".join(texts[number] for number in numbers if number < len(texts))
