"""Extractive question answering: the answer is a span of the context, found in overlapping windows of it."""
from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.model import Outputs
from spanbert_jax.model.losses import LossSums
from spanbert_jax.model.losses import cross_entropy as cross_entropy
from spanbert_jax.tasks.answers import Limits, best_answer, finite_logits
from spanbert_jax.tasks.features import FeatureList, Features
from spanbert_jax.tasks.files.questions import Question, given_question, read_questions
from spanbert_jax.tasks.metrics import question_answering as metrics
from spanbert_jax.tasks.protocol import Prediction, Task, place_of
from spanbert_jax.text import SpecialIds, special_ids, special_tokens_as_text

CUT = "questions cut at config.task.question_length pieces"
NO_QUESTION = "questions without text"
NO_CONTEXT = "contexts without text"
NO_PIECES = "answers of characters that the tokenizer drops, left out of training"
ELSEWHERE = "answers that begin or end inside a piece, for which another one, or another place, is aimed at"
WIDENED = "answers that begin or end inside a piece, aimed at with the rest of it"
LONG = "answers longer than config.task.max_answer_length pieces, which are never given"
NOT_ALLOWED = "impossible questions, to which an answer is always given: config.task.null_answers is off"

_BATCH_CHARACTERS = 1_000_000  # that encodings are alive of at once
_SPECIAL_PIECES = 3  # [CLS] question [SEP] chunk [SEP]

Span = tuple[int, int]  # first and last piece
_MAX_ANSWER_LENGTH, _ANSWERS_HELD = 30, 0.999
Encoded = tuple[np.ndarray, np.ndarray]  # ids [n], and characters [n, 2] of each piece: its first, and its end


class QuestionAnswering(Task):
    """SQuAD, MRQA and their like."""
    head = "question_answering"
    metric = "f1"
    targets = ("start", "end", "weight")
    free = ("n_best",)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Fields of `config.task`.

        stride: pieces from the beginning of a window of the context to that of the next.
        question_length: pieces of a question at most; what is longer is cut.
        max_answer_length: pieces of an answer at most, 30 in the reference; 0 for 30, or as many as 99.9% of the
          training answers need, where that is more, as in Chinese.
        n_best: answers to list.
        null_answers: whether "no answer" may be given, as SQuAD 2.0 asks.
        """
        return {"stride": 128, "question_length": 64, "max_answer_length": 0, "n_best": 20, "null_answers": False}

    def check_settings(self) -> None:
        for name, least in {"stride": 1, "question_length": 1, "max_answer_length": 0, "n_best": 1}.items():
            if self.settings[name] < least:
                raise UserError(f"config.task.{name} is {self.settings[name]}: it must be at least {least}")
        room = self.settings["length"] - self.settings["question_length"] - _SPECIAL_PIECES
        if self.settings["stride"] >= room:
            raise UserError(
                f"config.task.stride is {self.settings['stride']}: config.task.length {self.settings['length']} and "
                f"config.task.question_length {self.settings['question_length']} leave {room} pieces of context in a "
                f"feature, and windows have to overlap; take a stride below {room}, or a larger length")

    def read(self, path: str, faults: DataIssues, labelled: bool = True) -> Iterator[Question]:
        """As `files.questions.read_questions` has it."""
        return read_questions(path, faults, labelled)

    def example(self, inputs: str | Mapping[str, Any], where: str, faults: DataIssues) -> Question:
        """As `files.questions.given_question` has it."""
        return given_question(inputs, where)

    def check(self, examples: Sequence[Question]) -> None:
        """Official files of predictions go by ids, so no two questions may have one."""
        places: dict[str, str] = {}
        for example in examples:
            if (first := places.setdefault(example.id, example.where)) != example.where:
                raise UserError(f"{example.where}: id {example.id!r} is that of {first} too; predictions go by the "
                                "ids, so give each question its own, or one file at a time")

    def learn(self, examples: Sequence[Question], tokenizer: Tokenizer) -> None:
        """Stores how long answers may be, where the settings leave it open."""
        answers = [text for example in examples for text, _ in example.answers[:1]]
        lengths = [len(ids) for ids, _ in _encode(special_tokens_as_text(tokenizer), answers)]
        needed = np.quantile(lengths, _ANSWERS_HELD, method="higher") if lengths else 0
        self.facts["max_answer_length"] = max(_MAX_ANSWER_LENGTH, int(needed))

    @property
    def max_answer_length(self) -> int:
        """Pieces of an answer at most."""
        return self.settings["max_answer_length"] or self.facts.get("max_answer_length", _MAX_ANSWER_LENGTH)

    def features(self, examples: Sequence[Question], tokenizer: Tokenizer, faults: DataIssues,
                 labelled: bool = True) -> Features:
        """[CLS] question [SEP] chunk [SEP], token types 0 and 1, a feature for each window of a context.

        The columns "start" and "end" are positions in the feature of the answer's first and last piece, and 0,
        [CLS], where it is not wholly inside or there is none, as in the reference. "weight" is 0 where nothing is to be
        learned, because the question has answers and none of them is in its context, or because it has no text.

        The pieces' "char_start" and "char_end" are characters of the context as it was given, 0 and 0 outside the
        chunk. "max_context" marks the pieces of the chunk for which no other window has more context.
        """
        plain, special = special_tokens_as_text(tokenizer), special_ids(tokenizer)
        contexts = dict.fromkeys(example.context for example in examples)
        contexts = dict(zip(contexts, _encode(plain, contexts)))
        made = FeatureList()
        for index, (example, (question, _)) in enumerate(zip(examples, _encode(plain, (e.question for e in examples)))):
            ids, characters = contexts[example.context]
            self._count(example, question, ids, faults)
            target = self._target(example, question, characters, faults) if labelled else None
            self._add_windows(made, index, question[:self.settings["question_length"]], ids, characters, special,
                              target)
        columns = {"start": np.int32, "end": np.int32, "weight": np.float32} if labelled else {}
        return made.features(columns, {"char_start": np.int32, "char_end": np.int32, "max_context": np.bool_})

    def _count(self, example: Question, question: np.ndarray, context: np.ndarray, faults: DataIssues) -> None:
        place = place_of(example)
        if len(question) > self.settings["question_length"]:
            faults.add(CUT, place)
        if not len(question):
            faults.add(NO_QUESTION, place)
        if not len(context):
            faults.add(NO_CONTEXT, place)
        if example.impossible and not self.settings["null_answers"]:
            faults.add(NOT_ALLOWED, place)

    def _target(self, example: Question, question: np.ndarray, characters: np.ndarray,
                faults: DataIssues) -> tuple[Span | None, float]:
        """The pieces to aim at, None for [CLS], and the weight.

        That is the first answer, as in the reference, unless it begins or ends inside a piece, as where files give the
        place of "2" in "12"; what was learned then would be another answer.
        """
        if example.impossible or not example.answers or not len(question):
            return None, float(example.impossible)
        span = _whole_answer(characters, example.answers[:1])
        if not span and (span := _whole_answer(characters, example.answers[1:])
                         or _whole_answer(characters, _other_places(example))):
            faults.add(ELSEWHERE, place_of(example))
        if not span:
            text, start = example.answers[0]
            span = answer_pieces(characters, start, start + len(text))
            faults.add(WIDENED if span else NO_PIECES, place_of(example))
        if span and span[1] - span[0] >= self.max_answer_length:
            faults.add(LONG, place_of(example))
        return span, float(span is not None)

    def _add_windows(self, made: FeatureList, index: int, question: np.ndarray, ids: np.ndarray,
                     characters: np.ndarray, special: SpecialIds, target: tuple[Span | None, float] | None) -> None:
        span, weight = target or (None, None)
        room, stride = self.settings["length"] - len(question) - _SPECIAL_PIECES, self.settings["stride"]
        first = len(question) + 2  # position of the chunk
        best = best_windows(len(ids), room, stride)
        for number, begin in enumerate(window_starts(len(ids), room, stride)):
            chunk = slice(begin, begin + room)
            pieces = ids[chunk]
            tokens = np.concatenate([[special.cls], question, [special.sep], pieces, [special.sep]])
            types = np.zeros(len(tokens), np.uint8)
            types[first:] = 1
            bounds = np.zeros((2, len(tokens)), np.int32)
            bounds[:, first:-1] = characters[chunk].T
            owned = np.zeros(len(tokens), np.bool_)
            owned[first:-1] = best[chunk] == number
            inside = span is not None and begin <= span[0] and span[1] < begin + len(pieces)
            start, end = (first + piece - begin for piece in span) if inside else (0, 0)
            columns = {} if weight is None else {"start": start, "end": end, "weight": weight}
            made.add(index, tokens, types, columns,
                     {"char_start": bounds[0], "char_end": bounds[1], "max_context": owned})

    def loss(self, outputs: Outputs, batch: Mapping[str, jax.Array]) -> LossSums:
        """The mean of the cross-entropies of start and end over all pieces of a text; right where both are."""
        texts = 1 + jnp.arange(batch["first"].shape[1])
        inside = batch["segments"][:, None, :] == texts[:, None]  # [R, K, S]
        losses, hits = [], []
        for name, logits in (("start", outputs.start_logits), ("end", outputs.end_logits)):
            own = jnp.where(inside, logits[:, None, :], jnp.finfo(logits.dtype).min)
            loss, hit = cross_entropy(own, batch["first"] + batch[name])
            losses.append(loss)
            hits.append(hit)
        weights = batch["weights"] * batch["weight"]
        return LossSums(jnp.sum(weights * (losses[0] + losses[1]) / 2), jnp.sum(weights * hits[0] * hits[1]),
                    jnp.sum(weights))

    def decode(self, examples: Sequence[Question], features: Features,
               outputs: Mapping[str, Any]) -> list[Prediction]:
        """As `answers.best_answer` describes it, with "id"."""
        limits = Limits(self.settings["n_best"], self.max_answer_length, self.settings["null_answers"],
                        self.facts.get("null_threshold", 0.0))
        logits = finite_logits(outputs["start_logits"], outputs["end_logits"])
        return [{"id": example.id, **best_answer(example.context, features, windows, logits, limits)}
                for example, windows in zip(examples, features.by_example(len(examples)), strict=True)]

    def tune(self, examples: Sequence[Question], predictions: Sequence[Prediction]) -> None:
        """Where no answer may be given, keeps the null_odds above which doing so gives the best F1."""
        if not self.settings["null_answers"] or not examples:
            return
        figures, odds = self._threshold_figures(examples, predictions), [p["null_odds"] for p in predictions]
        self.facts["null_threshold"] = figures["best_f1_thresh"]
        nothing = 100.0 * sum(not example.gold for example in examples) / len(examples)
        if figures["best_f1"] <= nothing:  # no answer to any is best, for which the official threshold of 0 may not do
            self.facts["null_threshold"] = min(0.0, min(odds) - 1)

    def score(self, examples: Sequence[Question], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Exact match and F1 of SQuAD, in percent, of the answers as they were given.

        Where no answer may be given, by the definition of SQuAD 2.0, also over the questions with answers and over
        those without, and with what the best thresholds would reach; else by that of SQuAD 1.1, which is MRQA's too.
        """
        scores = self._scores(examples, [prediction["answer"] for prediction in predictions])
        figures = metrics.mean_figures(scores)
        if self.settings["null_answers"]:
            figures |= metrics.null_figures(scores, [bool(example.gold) for example in examples])
            figures |= self._threshold_figures(examples, predictions)
        return figures

    def _scores(self, examples: Sequence[Question], answers: Sequence[str]) -> list[metrics.Scores]:
        return [metrics.answer_scores(example.gold, answer, self.settings["null_answers"],
                                      metrics.is_unspaced(example.context))
                for example, answer in zip(examples, answers, strict=True)]

    def _threshold_figures(self, examples: Sequence[Question], predictions: Sequence[Prediction]) -> dict[str, float]:
        best = [prediction["best_answer"] for prediction in predictions]
        return metrics.threshold_figures(self._scores(examples, best), [bool(example.gold) for example in examples],
                                         best, [prediction["null_odds"] for prediction in predictions])

    def files(self, examples: Sequence[Question], predictions: Sequence[Prediction]) -> dict[str, str]:
        """"predictions.json", "nbest_predictions.json" and, where no answer may be given, "null_odds.json"."""
        fields = ("text", "probability", "start_logit", "end_logit")
        contents = {
            "predictions.json": {prediction["id"]: prediction["answer"] for prediction in predictions},
            "nbest_predictions.json": {prediction["id"]: [{name: entry[name] for name in fields}
                                                          for entry in prediction["n_best"]]
                                       for prediction in predictions}}
        if self.settings["null_answers"]:
            contents["null_odds.json"] = {prediction["id"]: prediction["null_odds"] for prediction in predictions}
        return {name: json.dumps(content, indent=4) + "\n" for name, content in contents.items()}


def window_starts(count: int, room: int, stride: int) -> range:
    """The first piece of each window, until one reaches the end; one window where there are no pieces.

    Args:
      count: pieces of the context.
      room: for the pieces of a window.
    """
    return range(0, 1 + max(0, math.ceil((count - room) / stride)) * stride, stride)


def best_windows(count: int, room: int, stride: int) -> np.ndarray:
    """[count] the window in which each piece has most context, the first of several.

    As in the reference, that is where the lesser of the pieces to its left and to its right, plus a hundredth of the
    window's pieces, is largest. A piece is in room / stride windows at most, so time goes by the pieces alone.
    """
    starts = window_starts(count, room, stride)
    piece = np.arange(count)
    first = np.maximum((piece - room) // stride + 1, 0)
    best, most = np.zeros(count, np.int64), np.full(count, -np.inf)
    for window in (first + k for k in range(math.ceil(room / stride))) if len(starts) > 1 else ():
        begin = window * stride
        length = np.minimum(room, count - begin)
        context = np.minimum(piece - begin, begin + length - 1 - piece) + 0.01 * length
        better = (begin <= piece) & (window < len(starts)) & (context > most)
        best, most = np.where(better, window, best), np.where(better, context, most)
    return best


def answer_pieces(characters: np.ndarray, start: int, end: int) -> Span | None:
    """The first and the last piece that a stretch of characters touches; None where it touches none.

    Characters that the tokenizer drops belong to no piece, so the stretch then begins or ends with the next one inside.

    Args:
      characters: [n, 2] of each piece, neither bound ever falling.
    """
    first = int(np.searchsorted(characters[:, 1], start, "right"))
    last = int(np.searchsorted(characters[:, 0], end, "left")) - 1
    return (first, last) if first <= last else None


def _encode(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[Encoded]:
    """Yields the pieces of one text after the other."""
    def encoded() -> Iterator[Encoded]:
        for encoding in tokenizer.encode_batch(batch, add_special_tokens=False):
            yield np.array(encoding.ids, np.int32), np.array(encoding.offsets, np.int32).reshape(-1, 2)

    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH_CHARACTERS:
            yield from encoded()
            batch, size = [], 0
    yield from encoded()


def _whole_answer(characters: np.ndarray, places: Iterable[tuple[str, int]]) -> Span | None:
    """The pieces of the first of some answers and places that neither begins nor ends inside a piece."""
    for text, start in places:
        span = answer_pieces(characters, start, start + len(text))
        if span and characters[span[0], 0] >= start and characters[span[1], 1] <= start + len(text):
            return span
    return None


def _other_places(example: Question) -> Iterator[tuple[str, int]]:
    """All places in the context that have the text of an answer, the nearest to where it is said to be first."""
    for text, start in example.answers:
        found = [match.start() for match in re.finditer(f"(?={re.escape(text)})", example.context)]
        yield from ((text, place) for place in sorted(found, key=lambda place: abs(place - start)))
