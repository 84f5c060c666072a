"""Extractive question answering: the answer is a span of the context, found in overlapping windows of it."""
import dataclasses
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.settings import from_dict, setting
from spanbert_jax.model import Head
from spanbert_jax.model.losses import LossSums, cross_entropy, weighted_sums
from spanbert_jax.tasks.answers import AnswerLimits, best_answer, finite_logits
from spanbert_jax.tasks.features import FeatureBuilder, Features
from spanbert_jax.tasks.files.questions import Question, parse_question, read_questions
from spanbert_jax.tasks.files.reading import describe_location, number_repeats
from spanbert_jax.tasks.metrics import question_answering as metrics
from spanbert_jax.tasks.protocol import FittedState, Prediction, Task, TaskSettings
from spanbert_jax.tasks.tokenizing import encode_texts, token_characters
from spanbert_jax.text import PairLayout, pair_layout

TRUNCATED = "questions truncated to config.task.question_length tokens"
NO_QUESTION = "questions without text"
NO_CONTEXT = "contexts without text"
NO_TOKENS = "answers of characters that the tokenizer drops, left out of training"
NOT_ALIGNED = "answers that do not fall on token boundaries; the nearest occurrence or another answer is used"
WIDENED = "answers that do not fall on token boundaries, extended to whole tokens"
TOO_LONG = "answers longer than config.task.max_answer_length tokens, never predicted"
NULL_NOT_ALLOWED = "unanswerable questions, predicted an answer all the same: config.task.null_answers is off"

_SPECIAL_TOKENS = 3  # [CLS] question [SEP] context [SEP]
_MAX_ANSWER_LENGTH, _COVERED = 30, 0.999
TokenSpan = tuple[int, int]  # first and last token


@dataclasses.dataclass(frozen=True)
class QuestionAnsweringSettings(TaskSettings):
    """Settings of question answering."""
    stride: int = setting(128, "Tokens from the start of a window of the context to the start of the next.", minimum=1)
    question_length: int = setting(64, "Maximum number of question tokens; longer questions are truncated.", minimum=1)
    max_answer_length: int = setting(0, "Maximum number of answer tokens; 0: 30 as in the reference, or as many as "
                                     "99.9% of the training answers need if that is more, as in Chinese.", minimum=0)
    n_best: int = setting(1, "Number of answers to list; the reference's files list 20.", minimum=1, overridable=True)
    null_answers: bool = setting(False, "Allow 'no answer', as in SQuAD 2.0.")
    contexts: str = setting("paragraphs", "What questions of SQuAD's format are about: their paragraph, or their whole "
                            "article, whose paragraphs are joined by line breaks.", choices=("paragraphs", "articles"),
                            overridable=True)

    def validate(self, path: str) -> None:
        super().validate(path)
        room = self.length - self.question_length - _SPECIAL_TOKENS
        if self.stride >= room:
            raise UserError(
                f"{path}.stride={self.stride}: {path}.length={self.length} and {path}.question_length="
                f"{self.question_length} leave {room} context tokens per feature, and windows must overlap; use a "
                f"stride below {room}, or a larger length")


@dataclasses.dataclass(frozen=True)
class QuestionAnsweringState(FittedState):
    """Fitted state of question answering."""
    max_answer_length: int | None = None  # maximum number of answer tokens by the training answers; None before `fit`
    null_threshold: float | None = None  # null_odds above which "no answer" is predicted; None before `tune`


class QuestionAnswering(Task[Question]):
    """SQuAD, MRQA and similar datasets."""
    Settings, Fitted = QuestionAnsweringSettings, QuestionAnsweringState
    head = "question_answering"
    metric = "f1"
    label_fields = ("start", "end", "weight")

    def read(self, path: str, issues: DataIssues, with_labels: bool = True) -> Iterator[Question]:
        return read_questions(path, issues, with_labels, self.settings.contexts == "articles")

    def example(self, inputs: str | Mapping[str, Any], location: str, issues: DataIssues) -> Question:
        return parse_question(inputs, location)

    def combine(self, examples: list[Question], issues: DataIssues) -> list[Question]:
        """Numbers repeated ids, such as those of XQuAD in several languages: prediction files go by id."""
        return list(number_repeats(examples, issues))

    @classmethod
    def of_head(cls, head: Head, length: int, settings: Mapping[str, Any]) -> Self:
        """Short questions and wide overlaps of windows suit models of few positions too."""
        question = min(cls.Settings.question_length, length // 4)
        stride = min(cls.Settings.stride, (length - question - _SPECIAL_TOKENS) // 2)
        given = {"length": length, "question_length": question, "stride": stride, **settings}
        return cls(from_dict(cls.Settings, given, "config.task"))

    def fit(self, examples: Sequence[Question], tokenizer: Tokenizer) -> Self:
        """Finds the maximum answer length."""
        answers = [text for example in examples for text, _ in example.answers[:1]]
        lengths = list(map(len, encode_texts(answers, tokenizer)))
        needed = np.quantile(lengths, _COVERED, method="higher") if lengths else 0
        return self.with_fitted(max_answer_length=max(_MAX_ANSWER_LENGTH, int(needed)))

    @property
    def max_answer_length(self) -> int:
        """Maximum number of answer tokens."""
        return self.settings.max_answer_length or self.fitted.max_answer_length or _MAX_ANSWER_LENGTH

    def features(self, examples: Sequence[Question], tokenizer: Tokenizer, issues: DataIssues,
                 with_labels: bool = True) -> Features:
        """[CLS] question [SEP] window [SEP] with token types 0 and 1, or other special tokens and types that the
        tokenizer gives a pair of texts; a feature per window of the context.

        Columns: "start" and "end", positions of the answer's first and last token in the feature, 0 ([CLS]) if the
        answer is not wholly inside or there is none, as in the reference; "weight", 0 for questions that cannot be
        learned: they have answers, none of which is in the context, or they have no text.

        Token columns: "char_start" and "char_end", characters of the original context, -1 and -1 outside the window;
        "max_context", whether no other window has more context for the token.
        """
        layout, builder = pair_layout(tokenizer), FeatureBuilder()
        contexts = dict.fromkeys(example.context for example in examples)
        # Token ids [n], and first character and end of each token [n, 2].
        encoded = {context: (np.array(encoding.ids, np.int32), token_characters(context, encoding))
                   for context, encoding in zip(contexts, encode_texts(contexts, tokenizer))}
        questions = encode_texts((example.question for example in examples), tokenizer,
                                 self.settings.question_length + 1)
        for index, (example, encoding) in enumerate(zip(examples, questions)):
            question, (ids, characters) = np.array(encoding.ids, np.int32), encoded[example.context]
            self._count_issues(example, question, ids, issues)
            target = self._target(example, question, characters, issues) if with_labels else None
            self._add_windows(builder, index, question[:self.settings.question_length], ids, characters, layout,
                              target)
        columns = {"start": np.int32, "end": np.int32, "weight": np.float32} if with_labels else {}
        return builder.build(columns, {"char_start": np.int32, "char_end": np.int32, "max_context": np.bool_})

    def _count_issues(self, example: Question, question: np.ndarray, context: np.ndarray, issues: DataIssues) -> None:
        for issue, holds in (
                (TRUNCATED, len(question) > self.settings.question_length), (NO_QUESTION, not len(question)),
                (NO_CONTEXT, not len(context)),
                (NULL_NOT_ALLOWED, example.impossible and not self.settings.null_answers)):
            if holds:
                issues.add(issue, describe_location(example))

    def _target(self, example: Question, question: np.ndarray, characters: np.ndarray,
                issues: DataIssues) -> tuple[TokenSpan | None, float]:
        """The answer tokens to learn, None for [CLS], and their weight.

        These are the tokens of the first answer, as in the reference, unless it starts or ends inside a token, as if a
        file marks the "2" of "12": its tokens would be another answer.
        """
        if example.impossible or not example.answers or not len(question):
            return None, float(example.impossible)
        span = exact_tokens(characters, example.answers[:1])
        if not span and (span := exact_tokens(characters, example.answers[1:])
                         or exact_tokens(characters, other_occurrences(example))):
            issues.add(NOT_ALIGNED, describe_location(example))
        if not span:
            text, start = example.answers[0]
            span = covering_tokens(characters, start, start + len(text))
            issues.add(WIDENED if span else NO_TOKENS, describe_location(example))
        if span and span[1] - span[0] >= self.max_answer_length:
            issues.add(TOO_LONG, describe_location(example))
        return span, float(span is not None)

    def _add_windows(self, builder: FeatureBuilder, index: int, question: np.ndarray, ids: np.ndarray,
                     characters: np.ndarray, layout: PairLayout,
                     target: tuple[TokenSpan | None, float] | None) -> None:
        """Adds the features of a question."""
        span, weight = target or (None, None)
        room, stride = self.settings.length - len(question) - layout.size, self.settings.stride
        first = len(question) + layout.size - 1  # position of the window
        best = best_windows(len(ids), room, stride)
        for number, begin in enumerate(window_starts(len(ids), room, stride)):
            window = slice(begin, begin + room)
            inside = ids[window]
            tokens = np.array(layout.tokens(question.tolist(), inside.tolist()), np.int32)
            types = layout.types(len(question), len(inside))
            bounds = np.full((2, len(tokens)), -1, np.int32)
            bounds[:, first:-1] = characters[window].T
            max_context = np.zeros(len(tokens), np.bool_)
            max_context[first:-1] = best[window] == number
            start, end = 0, 0
            if span is not None and begin <= span[0] and span[1] < begin + len(inside):
                start, end = first + span[0] - begin, first + span[1] - begin
            columns = {} if weight is None else {"start": start, "end": end, "weight": weight}
            builder.add(index, tokens, types, columns,
                        {"char_start": bounds[0], "char_end": bounds[1], "max_context": max_context})

    def loss(self, outputs: Any, batch: Mapping[str, jax.Array]) -> LossSums:
        """Mean of the start's and end's cross-entropy over the tokens of each text; correct if both are."""
        texts = 1 + jnp.arange(batch["first"].shape[1])
        inside = batch["segments"][:, None, :] == texts[:, None]  # [R, K, S]
        losses, hits = [], []
        for name, logits in (("start", outputs.start_logits), ("end", outputs.end_logits)):
            own = jnp.where(inside, logits[:, None, :], jnp.finfo(logits.dtype).min)
            loss, hit = cross_entropy(own, batch["first"] + batch[name])
            losses.append(loss)
            hits.append(hit)
        weights = batch["weights"] * batch["weight"]
        return weighted_sums((losses[0] + losses[1]) / 2, hits[0] * hits[1], weights)

    def decode(self, examples: Sequence[Question], features: Features, outputs: Mapping[str, Any]) -> list[Prediction]:
        """The result of `answers.best_answer` with "id"."""
        limits = AnswerLimits(self.settings.n_best, self.max_answer_length, self.settings.null_answers,
                              self.fitted.null_threshold or 0.0)
        logits = finite_logits(outputs["start_logits"], outputs["end_logits"])
        return [{"id": example.id, **best_answer(example.context, features, windows, logits, limits)}
                for example, windows in zip(examples, features.by_example(len(examples)), strict=True)]

    def tune(self, examples: Sequence[Question], predictions: Sequence[Prediction]) -> Self:
        """With null answers: finds the threshold of null_odds that gives the best F1."""
        if not self.settings.null_answers or not examples:
            return self
        best, odds = self._best_thresholds(examples, predictions), [p["null_odds"] for p in predictions]
        threshold = best["best_f1_thresh"]
        always_null = 100.0 * sum(not example.gold for example in examples) / len(examples)
        if best["best_f1"] <= always_null:  # never answering is best; the official threshold of 0 may still answer
            threshold = min(0.0, min(odds) - 1)
        return self.with_fitted(null_threshold=float(threshold))

    def score(self, examples: Sequence[Question], predictions: Sequence[Prediction]) -> dict[str, float]:
        """SQuAD's exact match and F1 of the predicted answers, in percent.

        With null answers by the definition of SQuAD 2.0, also over questions with and without answers and at the best
        thresholds; else by the definition of SQuAD 1.1 and MRQA.
        """
        scores = self._scores(examples, [prediction["answer"] for prediction in predictions])
        result = metrics.mean_metrics(scores)
        if self.settings.null_answers:
            result |= metrics.null_metrics(scores, [bool(example.gold) for example in examples])
            result |= self._best_thresholds(examples, predictions)
        return result

    def _scores(self, examples: Sequence[Question], answers: Sequence[str]) -> list[metrics.Scores]:
        return [metrics.answer_scores(example.gold, answer, self.settings.null_answers,
                                      metrics.is_unspaced(example.context))
                for example, answer in zip(examples, answers, strict=True)]

    def _best_thresholds(self, examples: Sequence[Question], predictions: Sequence[Prediction]) -> dict[str, float]:
        best = [prediction["best_answer"] for prediction in predictions]
        return metrics.threshold_metrics(self._scores(examples, best), [bool(example.gold) for example in examples],
                                         best, [prediction["null_odds"] for prediction in predictions])

    def files(self, examples: Sequence[Question], predictions: Sequence[Prediction]) -> dict[str, str]:
        """"predictions.json", "nbest_predictions.json" and, with null answers, "null_odds.json"."""
        fields = ("text", "probability", "start_logit", "end_logit")
        by_id = {example.id: prediction for example, prediction in zip(examples, predictions, strict=True)}
        contents = {
            "predictions.json": {name: prediction["answer"] for name, prediction in by_id.items()},
            "nbest_predictions.json": {name: [{field: entry[field] for field in fields}
                                              for entry in prediction["n_best"]]
                                       for name, prediction in by_id.items()}}
        if self.settings.null_answers:
            contents["null_odds.json"] = {name: prediction["null_odds"] for name, prediction in by_id.items()}
        return {name: json.dumps(content, indent=4) + "\n" for name, content in contents.items()}


def window_starts(count: int, room: int, stride: int) -> range:
    """The first token of each window of at most `room` of a context's `count` tokens; one for an empty context."""
    return range(0, 1 + max(0, math.ceil((count - room) / stride)) * stride, stride)


def best_windows(count: int, room: int, stride: int) -> np.ndarray:
    """[count] the window in which each token has most context, the first of several.

    As in the reference, most context means the largest min(tokens to the left, tokens to the right) plus 0.01 times the
    window's length. A token is in at most room / stride windows, so time is linear in the tokens.
    """
    starts = window_starts(count, room, stride)
    token = np.arange(count)
    first = np.maximum((token - room) // stride + 1, 0)
    best, most = np.zeros(count, np.int64), np.full(count, -np.inf)
    for window in (first + k for k in range(math.ceil(room / stride))) if len(starts) > 1 else ():
        begin = window * stride
        length = np.minimum(room, count - begin)
        context = np.minimum(token - begin, begin + length - 1 - token) + 0.01 * length
        better = (begin <= token) & (window < len(starts)) & (context > most)
        best, most = np.where(better, window, best), np.where(better, context, most)
    return best


def covering_tokens(characters: np.ndarray, start: int, end: int) -> TokenSpan | None:
    """The first and last token that overlap characters [start, end); None if none does.

    `characters` [n, 2] are first character and end of each token, both non-decreasing; some may belong to no token.
    """
    first = int(np.searchsorted(characters[:, 1], start, "right"))
    last = int(np.searchsorted(characters[:, 0], end, "left")) - 1
    return (first, last) if first <= last else None


def exact_tokens(characters: np.ndarray, answers: Iterable[tuple[str, int]]) -> TokenSpan | None:
    """The tokens of the first of several (text, start) answers that neither starts nor ends inside a token."""
    for text, start in answers:
        span = covering_tokens(characters, start, start + len(text))
        if span and characters[span[0], 0] >= start and characters[span[1], 1] <= start + len(text):
            return span
    return None


def other_occurrences(example: Question) -> Iterator[tuple[str, int]]:
    """All occurrences of the answers' texts in the context, for each answer the nearest to its given start first."""
    for text, start in example.answers:
        found = [match.start() for match in re.finditer(f"(?={re.escape(text)})", example.context)]
        yield from ((text, place) for place in sorted(found, key=lambda place: abs(place - start)))
