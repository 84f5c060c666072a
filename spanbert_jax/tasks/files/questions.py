"""Files of questions on texts: SQuAD 1.1 and 2.0, MRQA, and plain JSON lines."""
from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files.reading import BEGINS_ARRAY, BEGINS_OBJECT, field, is_json_lines, json_lines, json_parts
from spanbert_jax.tasks.metrics.question_answering import answer_tokens

_TITLE, _PARAGRAPH = ("data", "*", "title"), ("data", "*", "paragraphs", "*")
Part = tuple[tuple[str | int, ...], Any]  # of a JSON document: place and value
MOVED = "answers that are not where they are said to begin, moved to the nearest place that has their text"
OUTSIDE = "answers said to begin outside their context, moved to the nearest place that has their text"
NOWHERE = "answers that are not in their context, left out of training"
EMPTY = "answers without text, left out of training"
UNANSWERED = "questions without answers, taken for impossible ones"
CONTRADICTORY = "impossible questions with answers, which are left out"


@dataclasses.dataclass(frozen=True)
class Question:
    """A question on a text.

    Attributes:
      id: its name in files of predictions.
      where: file and line, or file and numbers of article, paragraph and question.
      group: title or number of the article that the context is from, or a hash of the context where neither is known.
      question: the question.
      context: the text that the answer is in.
      answers: (text, start character in the context) of each answer that is there; training aims at the first.
      gold: the texts that count as right, whether or not the context has them; none where the question is impossible,
        or where nothing is known.
      impossible: whether the context holds no answer.
    """
    id: str
    location: str
    group: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...] = ()
    gold: tuple[str, ...] = ()
    impossible: bool = False


def read_questions(path: str, issues: DataIssues, with_labels: bool = True) -> Iterator[Question]:
    """Yields the questions of a file; a paragraph, or a line, is in memory at a time.

    Args:
      path: JSON lines by its name (.jsonl, .jsonl.gz, ...), each line a context with "qas" as in MRQA, or a question;
        else a JSON document in the layout of SQuAD.
      faults: counts answers that are not where the file says.
      labelled: whether every question must have answers, or be marked as impossible.

    Raises:
      UserError: the file cannot be read, a field is missing or of another type, or, where questions are labelled, an
        id comes twice.
    """
    if not with_labels:  # predictions for a file of any size leave no room to remember them
        yield from _questions(path, issues, with_labels)
        return
    seen = set()  # of 8-byte hashes; a repeated one sends for the ids themselves
    for question in _questions(path, issues, with_labels):
        key = hash(question.id)
        if key in seen:
            first = next(other for other in _questions(path, DataIssues(), with_labels) if other.id == question.id)
            if first.location != question.location:
                raise UserError(f"{question.location}: id {question.id!r} is that of {first.location} too; predictions go by "
                                "the ids, so give each question its own")
        seen.add(key)
        yield question


def parse_question(inputs: str | Mapping[str, Any], location: str) -> Question:
    """A question to be answered, from its "question" and "context".

    Raises:
      UserError: when either is missing or no text.
    """
    if isinstance(inputs, str):
        raise UserError(f"{location}: {inputs!r:.80} is a text alone; give 'question' and 'context' by name")
    question, context = (field(dict(inputs), name, location) for name in ("question", "context"))
    return Question(location, location, location, question, context)


def _questions(path: str, issues: DataIssues, with_labels: bool) -> Iterator[Question]:
    return (_lines if is_json_lines(path) else _articles)(path, issues, with_labels)


def _articles(path: str, issues: DataIssues, with_labels: bool) -> Iterator[Question]:
    """The layout of SQuAD: data > paragraphs > qas. CMRC 2018 and XQuAD have it too, with or without titles.

    A title that comes after the paragraphs is not known in time: the article then goes by its number.
    """
    group = ""
    for place, value in _layout_checked(path, json_parts(path, (_TITLE, _PARAGRAPH), issues)):
        if len(place) == len(_TITLE):
            group = str(value or place[1] + 1)
            continue
        at = f"{path}: article {place[1] + 1}, paragraph {place[3] + 1}"
        context = field(_object(value, at), "context", at)
        for here, record in _objects(value, "qas", at, "question"):
            name = str(field(record, "id", here, (str, int)))
            yield _question(record, name, here, group, context, issues, with_labels)


def _layout_checked(path: str, parts: Iterable[Part]) -> Iterator[Part]:
    """Yields titles, an empty one where an article begins, and paragraphs, of a document that has the layout."""
    location, lacking = "", ""
    for place, value in parts:
        if len(place) == 2:
            if lacking:
                raise UserError(lacking)
            location = f"{path}: article {place[1] + 1}"
            if value is not BEGINS_OBJECT:
                raise UserError(f"{location} is no object; is the file of another format?")
            lacking = f"{location}: no field 'paragraphs'; is the file of another format?"
            yield (*place, "title"), ""
        elif place[2:] == ("paragraphs",):
            if value is not BEGINS_ARRAY:
                raise UserError(f"{location}: field 'paragraphs' is not of type list")
            lacking = ""
        elif len(place) > 2:
            yield place, value
        elif place == ("data",) and value is BEGINS_ARRAY:
            location = path
    if lacking or not location:
        raise UserError(lacking or f'{path}: the JSON in it is not an object with an array "data"; is it of another '
                        "format?")


def _lines(path: str, issues: DataIssues, with_labels: bool) -> Iterator[Question]:
    """JSON lines: of MRQA, with its header, or of one question each, whose id may be missing."""
    for location, record in json_lines(path, issues):
        if "qas" in record:
            yield from _mrqa(record, location, issues, with_labels)
        elif "context" in record or "header" not in record:
            context = field(record, "context", location)
            given = record.get("id") is not None
            name = str(field(record, "id", location, (str, int))) if given else location.rpartition(":")[2]
            yield _question(record, name, location, str(record.get("title") or _hash(context)), context, issues, with_labels)


def _question(record: dict[str, Any], name: str, location: str, group: str, context: str, issues: DataIssues,
              with_labels: bool) -> Question:
    """A question whose answers have a text and a start each."""
    place = f"{location} (id {name!r})"
    impossible = _marked(record, place)
    listed = _listed(record, place, issues) if "answers" in record or with_labels and not impossible else []
    placed = [_place(text, start, context, place, issues) for text, start in listed]
    question = Question(name, location, group, field(record, "question", place), context,
                        tuple(filter(None, placed)), tuple(text for text, _ in listed), impossible)
    return _settled(question, place, issues, with_labels)


def _listed(record: dict[str, Any], place: str, issues: DataIssues) -> list[tuple[str, int]]:
    """Texts and starts, from [{"text", "answer_start"}, ...] or from {"text": [...], "answer_start": [...]}."""
    answers = field(record, "answers", place, (list, dict))
    if isinstance(answers, dict):
        texts, starts = (field(answers, name, f"{place}, answers", list) for name in ("text", "answer_start"))
        if len(texts) != len(starts):
            raise UserError(f"{place}: {len(texts)} answers in 'text' and {len(starts)} in 'answer_start'; "
                            "give as many of both")
        record = {"answers": [{"text": text, "answer_start": start} for text, start in zip(texts, starts)]}
    return [(field(answer, "text", at), field(answer, "answer_start", at, int))
            for at, answer in _objects(record, "answers", place, "answer")]


def _mrqa(record: dict[str, Any], location: str, issues: DataIssues, with_labels: bool) -> Iterator[Question]:
    """The questions on one context of MRQA, whose answers' spans were detected by its makers.

    Training aims at the earliest span, as the reference does; what is right is told by "answers" alone.
    """
    context = field(record, "context", location)
    for here, listed in _objects(record, "qas", location, "question"):
        name = str(field(listed, "qid" if "qid" in listed else "id", here, (str, int)))
        place = f"{here} (id {name!r})"
        gold = _strings(listed, "answers", place) if with_labels or "answers" in listed else ()
        known = gold and (with_labels or "detected_answers" in listed)
        answers = _detected(listed, context, place, issues) if known else ()
        question = Question(name, here, _hash(context), field(listed, "question", place), context, answers,
                            gold, _marked(listed, place))
        yield _settled(question, place, issues, with_labels)


def _detected(record: dict[str, Any], context: str, place: str, issues: DataIssues) -> tuple[tuple[str, int], ...]:
    """The spans of all detected answers by their starts, as the context spells them, which the file may not do."""
    placed = []
    for at, answer in _objects(record, "detected_answers", place, "detected answer"):
        text = field(answer, "text", at)
        for span in field(answer, "char_spans", at, list):
            if not (isinstance(span, list) and len(span) == 2 and all(type(edge) is int for edge in span)):
                raise UserError(f"{at}: field 'char_spans' has {span!r:.80}; a span is [first, last character]")
            first, last = span
            there = context[first:last + 1] if first >= 0 else ""
            same = answer_tokens(there) == answer_tokens(text) != []
            placed.append((there, first) if same else _place(text, first, context, place, issues))
    if not placed:
        issues.add(NOWHERE, place)
    return tuple(sorted(dict.fromkeys(filter(None, placed)), key=lambda answer: answer[1]))


def _marked(record: dict[str, Any], place: str) -> bool:
    """Whether a question is said to be impossible."""
    return "is_impossible" in record and field(record, "is_impossible", place, bool)


def _settled(question: Question, place: str, issues: DataIssues, with_labels: bool) -> Question:
    """A question that has answers or is impossible, where it has to be either; one without answers is impossible."""
    if question.impossible and question.gold:
        issues.add(CONTRADICTORY, place)
        return dataclasses.replace(question, answers=(), gold=())
    if with_labels and not question.impossible and not question.gold:
        issues.add(UNANSWERED, place)
        return dataclasses.replace(question, answers=(), impossible=True)
    return question


def _place(text: str, start: int, context: str, place: str, issues: DataIssues) -> tuple[str, int] | None:
    """An answer, and where it is in its context; None where it is not."""
    if not text.strip():
        issues.add(EMPTY, place)
        return None
    if start >= 0 and context.startswith(text, start):
        return text, start
    at = _nearest(text, start, context)
    if at < 0:
        issues.add(NOWHERE, place)
        return None
    issues.add(MOVED if 0 <= start < len(context) else OUTSIDE, place)
    return text, at


def _nearest(text: str, start: int, context: str) -> int:
    """Where the text begins nearest to a character, the earlier of two as near; -1 where the context lacks it."""
    start = max(start, 0)
    before, after = context.rfind(text, 0, start + len(text)), context.find(text, start)
    if before < 0 or after < 0:
        return max(before, after)
    return before if start - before <= after - start else after


def _object(value: Any, location: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{location}: {value!r:.80} where an object is wanted; is the file of another format?")
    return value


def _objects(record: dict[str, Any], name: str, location: str, noun: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the place and the object of each entry of a list."""
    for number, value in enumerate(field(record, name, location, list), 1):
        place = f"{location}, {noun} {number}"
        yield place, _object(value, place)


def _strings(record: dict[str, Any], name: str, location: str) -> tuple[str, ...]:
    values = field(record, name, location, list)
    if wrong := [value for value in values if not isinstance(value, str)]:
        raise UserError(f"{location}: field {name!r} has {wrong[0]!r:.80} where a text is wanted")
    return tuple(values)


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
