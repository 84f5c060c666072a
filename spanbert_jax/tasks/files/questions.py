"""Files of questions about texts: SQuAD 1.1 and 2.0, MRQA, and plain records as JSON lines or in an array."""
import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files import reading
from spanbert_jax.tasks.files.reading import BEGINS_ARRAY, BEGINS_OBJECT, field, json_parts
from spanbert_jax.tasks.metrics.question_answering import answer_tokens

_FIELDS = ("context", "question", "qas", "header", "questions")  # of a record; an article has none of them
_MOST_CHARACTERS = 5_000_000  # of a context, whose tokens take about 200 bytes a character: a book has a million
_TITLE, _PARAGRAPH = ("data", "*", "title"), ("data", "*", "paragraphs", "*")
Part = tuple[tuple[Any, ...], Any]  # of a JSON document: path and value
MOVED = "answers that are not at their start position, moved to the nearest occurrence of their text"
OUTSIDE = "answers with a start position outside the context, moved to the nearest occurrence of their text"
NOWHERE = "answers that are not in their context, left out of training"
EMPTY = "answers without text, left out of training"
UNANSWERED = "questions without answers, treated as impossible"
CONTRADICTORY = "impossible questions with answers; the answers are left out"


@dataclasses.dataclass(frozen=True)
class Question(reading.Example):
    """A question about a text.

    `location` is file and line, or file and numbers of article, paragraph and question; `group` is title or number of
    the context's article, or a hash of the context if neither is known.
    """
    question: str
    context: str  # the text that contains the answer
    answers: tuple[tuple[str, int], ...] = ()  # text and start character in the context; training uses the first
    gold: tuple[str, ...] = ()  # all correct texts, in the context or not; empty if impossible or unlabeled
    impossible: bool = False  # whether the context contains no answer


def read_questions(path: str, issues: DataIssues, with_labels: bool = True,
                   whole_articles: bool = False) -> Iterator[Question]:
    """Yields the questions of a file, with one paragraph, article or line in memory at a time.

    Args:
      path: a JSON document in SQuAD's format; or records, each a context with "qas" as in MRQA, a document with
        "questions" as in FairytaleQA, or a question, as JSON lines, in an array, or in an array "data" as
        transformers' examples read them.
      issues: counts answers that are not at their start position, and the like.
      with_labels: every question must have answers or be marked as impossible.
      whole_articles: in SQuAD's format, the context of a question is its article: all paragraphs, joined by line
        breaks.

    Raises:
      UserError: the file cannot be read, a field is missing or of another type, or, with labels, an id occurs twice.
    """
    locations: dict[str, str] = {}
    records = _records(path, issues)
    for question in (_questions(records, issues, with_labels) if records
                     else _articles(path, issues, with_labels, whole_articles)):
        if len(question.context) > _MOST_CHARACTERS:
            raise UserError(f"{question.location} (id {question.id!r}): a context of {len(question.context):,} "
                            f"characters; {_MOST_CHARACTERS:,} are the most: divide it")
        # Without labels, the file may be too large to remember all ids.
        if with_labels and (first := locations.setdefault(question.id, question.location)) != question.location:
            raise UserError(f"{question.location}: id {question.id!r} occurs also at {first}; predictions are stored "
                            "by id, so give each question its own")
        yield question


def parse_question(inputs: str | Mapping[str, Any], location: str) -> Question:
    """A question without answers. Raises UserError if "question" or "context" is missing or not a text."""
    if isinstance(inputs, str):
        raise UserError(f"{location}: {inputs!r:.80} is only a text; give 'question' and 'context' by name")
    question, context = (field(dict(inputs), name, location) for name in ("question", "context"))
    return Question(location, location, location, question, context)


def _articles(path: str, issues: DataIssues, with_labels: bool, whole: bool) -> Iterator[Question]:
    """The questions of a file in SQuAD's format; with `whole` about the joined paragraphs of their article."""
    for _, paragraphs in itertools.groupby(_paragraphs(path, issues, with_labels), lambda paragraph: paragraph[0]):
        if whole:
            yield from _joined([(context, list(questions)) for _, context, questions in paragraphs])
        else:
            yield from itertools.chain.from_iterable(questions for _, _, questions in paragraphs)


def _joined(paragraphs: list[tuple[str, list[Question]]]) -> Iterator[Question]:
    """The questions about all paragraphs of an article, of which each is given with its own."""
    context, start = "\n".join(text for text, _ in paragraphs), 0
    for text, questions in paragraphs:
        for question in questions:
            answers = tuple((answer, start + at) for answer, at in question.answers)
            yield dataclasses.replace(question, context=context, answers=answers)
        start += len(text) + 1


def _paragraphs(path: str, issues: DataIssues, with_labels: bool) -> Iterator[tuple[int, str, Iterator[Question]]]:
    """SQuAD's format, data > paragraphs > qas, as number of the article, text and questions of each paragraph.

    CMRC 2018 and XQuAD use it too, with or without titles. A title after the paragraphs comes too late: the article's
    number is then its group.
    """
    group = ""
    for place, value in _check_format(path, json_parts(path, (_TITLE, _PARAGRAPH), issues)):
        if len(place) == len(_TITLE):
            group = str(value or place[1] + 1)
            continue
        at = f"{path}: article {place[1] + 1}, paragraph {place[3] + 1}"
        context = field(_object(value, at), "context", at)
        yield place[1], context, _of_paragraph(value, at, group, context, issues, with_labels)


def _of_paragraph(paragraph: dict[str, Any], location: str, group: str, context: str, issues: DataIssues,
                  with_labels: bool) -> Iterator[Question]:
    for here, record in _objects(paragraph, "qas", location, "question"):
        name = reading.name_field(record, "id", here)
        yield _question(record, name, here, group, context, issues, with_labels)


def _check_format(path: str, parts: Iterable[Part]) -> Iterator[Part]:
    """Yields titles, an empty one at the start of an article, and paragraphs; checks that the format is SQuAD's."""
    location, lacking = "", ""
    for place, value in parts:
        if len(place) == 2:
            if lacking:
                raise UserError(lacking)
            location = f"{path}: article {place[1] + 1}"
            if value is not BEGINS_OBJECT:
                raise UserError(f"{location} is not an object; is the file in another format?")
            lacking = f"{location}: no field 'paragraphs'; is the file in another format?"
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


def _records(path: str, issues: DataIssues) -> Iterator[tuple[str, dict[str, Any]]] | None:
    """Location and fields of each record; None for a file in SQuAD's format."""
    if reading.first_characters(path).startswith("["):
        return reading.json_records(path, issues)
    key = next((key for key in reading.first_keys(path) if key in ("data", *_FIELDS)), "")
    if key == "data":
        key = next((key for key in reading.first_keys(path, "data.item") if key in ("paragraphs", *_FIELDS)), "")
        return reading.numbered_json_items(path, "data", issues) if key in _FIELDS else None
    is_document = not key and reading.without_compression(path).lower().endswith(".json")
    return None if is_document else reading.json_records(path, issues)


def _questions(records: Iterable[tuple[str, dict[str, Any]]], issues: DataIssues,
               with_labels: bool) -> Iterator[Question]:
    """MRQA's format with its header, documents with questions, or one question per record with an optional id."""
    for location, record in records:
        if "qas" in record:
            yield from _mrqa(record, location, issues, with_labels)
        elif "questions" in record:
            yield from _of_document(record, location, issues, with_labels)
        elif "context" in record or "header" not in record:
            context = field(record, "context", location)
            given = record.get("id") is not None
            name = reading.name_field(record, "id", location) if given else location.rpartition(":")[2]
            yield _question(record, name, location, str(record.get("title") or _hash(context)), context, issues,
                            with_labels)


def _question(record: dict[str, Any], name: str, location: str, group: str, context: str, issues: DataIssues,
              with_labels: bool) -> Question:
    """A question whose answers have a text and a start position."""
    place = f"{location} (id {name!r})"
    impossible = _marked(record, place)
    listed = _listed(record, place) if "answers" in record or (with_labels and not impossible) else []
    placed = [_place(text, start, context, place, issues) for text, start in listed]
    question = Question(name, location, group, field(record, "question", place), context,
                        tuple(filter(None, placed)), tuple(text for text, _ in listed), impossible)
    return _resolve(question, place, issues, with_labels)


def _listed(record: dict[str, Any], place: str) -> list[tuple[str, int]]:
    """Texts and starts, from [{"text", "answer_start"}, ...] or from {"text": [...], "answer_start": [...]}."""
    answers = field(record, "answers", place, (list, dict))
    if isinstance(answers, dict):
        texts, starts = (field(answers, name, f"{place}, answers", list) for name in ("text", "answer_start"))
        if len(texts) != len(starts):
            raise UserError(f"{place}: {format_plural(len(texts), 'answer')} in 'text' and {len(starts)} in "
                            "'answer_start'; give as many of both")
        record = {"answers": [{"text": text, "answer_start": start} for text, start in zip(texts, starts)]}
    return [(field(answer, "text", at), field(answer, "answer_start", at, int))
            for at, answer in _objects(record, "answers", place, "answer")]


def _mrqa(record: dict[str, Any], location: str, issues: DataIssues, with_labels: bool) -> Iterator[Question]:
    """The questions about one context of MRQA, with the answer spans that its authors detected.

    Training uses the earliest span, as the reference; "answers" alone are the correct texts.
    """
    context = field(record, "context", location)
    for here, listed in _objects(record, "qas", location, "question"):
        name = reading.name_field(listed, "qid" if "qid" in listed else "id", here)
        place = f"{here} (id {name!r})"
        gold = _strings(listed, "answers", place) if with_labels or "answers" in listed else ()
        known = gold and (with_labels or "detected_answers" in listed)
        answers = _detected(listed, context, place, issues) if known else ()
        question = Question(name, here, _hash(context), field(listed, "question", place), context, answers,
                            gold, _marked(listed, place))
        yield _resolve(question, place, issues, with_labels)


def _of_document(record: dict[str, Any], location: str, issues: DataIssues, with_labels: bool) -> Iterator[Question]:
    """The questions about a document, as FairytaleQA has them.

    "answers" are texts, which need not be in the document; "answer_spans" are the first character and the end of those
    that are. Questions without spans are not trained on, but their answers count in scores.
    """
    context = field(record, "text", location)
    group = str(record.get("title") or _hash(context))
    for here, listed in _objects(record, "questions", location, "question"):
        name = reading.name_field(listed, "id", here)
        place = f"{here} (id {name!r})"
        gold = _strings(listed, "answers", place) if with_labels or "answers" in listed else ()
        given = field(listed, "answer_spans", place, list) if "answer_spans" in listed else ()
        spans = [_span(span, "answer_spans", place, "[first character, end]") for span in given]
        if gold and with_labels and not spans:
            issues.add(NOWHERE, place)
        placed = [_place(context[start:end], start, context, place, issues) for start, end in spans]
        question = Question(name, here, group, field(listed, "question", place), context, tuple(filter(None, placed)),
                            gold, _marked(listed, place))
        yield _resolve(question, place, issues, with_labels)


def _span(span: Any, name: str, location: str, meaning: str) -> tuple[int, int]:
    """An entry of the field `name`."""
    if not (isinstance(span, list) and len(span) == 2 and all(type(edge) is int for edge in span)):
        raise UserError(f"{location}: field {name!r} has {span!r:.80}; a span is {meaning}")
    return span[0], span[1]


def _detected(record: dict[str, Any], context: str, place: str, issues: DataIssues) -> tuple[tuple[str, int], ...]:
    """The spans of all detected answers by start, in the context's spelling; the file's may differ."""
    placed = []
    for at, answer in _objects(record, "detected_answers", place, "detected answer"):
        text = field(answer, "text", at)
        for span in field(answer, "char_spans", at, list):
            first, last = _span(span, "char_spans", at, "[first, last character]")
            found = context[first:last + 1] if first >= 0 else ""
            same = answer_tokens(found) == answer_tokens(text) != []
            placed.append((found, first) if same else _place(text, first, context, place, issues))
    if not placed:
        issues.add(NOWHERE, place)
    return tuple(sorted(dict.fromkeys(filter(None, placed)), key=lambda answer: answer[1]))


def _marked(record: dict[str, Any], place: str) -> bool:
    """Whether a question is marked as impossible."""
    return "is_impossible" in record and field(record, "is_impossible", place, bool)


def _resolve(question: Question, place: str, issues: DataIssues, with_labels: bool) -> Question:
    """Removes contradictions: an impossible question has no answers; with labels, one without answers is impossible."""
    if question.impossible and question.gold:
        issues.add(CONTRADICTORY, place)
        return dataclasses.replace(question, answers=(), gold=())
    if with_labels and not question.impossible and not question.gold:
        issues.add(UNANSWERED, place)
        return dataclasses.replace(question, answers=(), impossible=True)
    return question


def _place(text: str, start: int, context: str, place: str, issues: DataIssues) -> tuple[str, int] | None:
    """An answer and its start in the context; None if the context does not contain it."""
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
    """Start of the occurrence of a text nearest to a character, the earlier of two; -1 if there is none."""
    start = max(start, 0)
    before, after = context.rfind(text, 0, start + len(text)), context.find(text, start)
    if before < 0 or after < 0:
        return max(before, after)
    return before if start - before <= after - start else after


def _object(value: Any, location: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{location}: {value!r:.80} must be an object; is the file in another format?")
    return value


def _objects(record: dict[str, Any], name: str, location: str, noun: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields location and object of each entry of a list."""
    for number, value in enumerate(field(record, name, location, list), 1):
        place = f"{location}, {noun} {number}"
        yield place, _object(value, place)


def _strings(record: dict[str, Any], name: str, location: str) -> tuple[str, ...]:
    values = field(record, name, location, list)
    if wrong := [value for value in values if not isinstance(value, str)]:
        raise UserError(f"{location}: field {name!r} has {wrong[0]!r:.80}, which is not a text")
    return tuple(values)


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
