"""Files of relations between two entities of a sentence: JSON of TACRED and OpenNRE, text of SemEval-2010 Task 8."""
import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files import reading

FORMATS = ("auto", "tacred", "semeval")
_NUMBERED = re.compile(r"([0-9]+)\t(.*)")
_ENTITY_TAG = re.compile(r"(</?e[12]>)")
_ENTITY_TAGS = ("<e1>", "</e1>", "<e2>", "</e2>")

Span = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Relation(reading.Example):
    """A sentence with two entities. `group` is its document or, without one, the id that the file gives it."""
    tokens: tuple[str, ...]  # the words of the sentence
    subject: Span  # numbers of its first and last word
    object: Span  # likewise
    subject_type: str  # empty if the file has no types
    object_type: str  # likewise
    relation: str | None  # its name; None if unknown
    text: str | None = None  # the sentence; None if the file has words only
    characters: tuple[Span, Span] | None = None  # characters [start, end) of subject and object in the text

    def entities(self) -> dict[str, dict[str, Any]]:
        """"subject" and "object" as {"text", "start", "end"}, in the text or the words joined by single spaces."""
        text, characters = self.text, self.characters
        if text is None or characters is None:
            starts = list(itertools.accumulate((len(word) + 1 for word in self.tokens), initial=0))
            text = " ".join(self.tokens)
            subject, object = ((starts[first], starts[last + 1] - 1) for first, last in (self.subject, self.object))
            characters = subject, object
        return {name: {"text": text[start:end], "start": start, "end": end}
                for name, (start, end) in zip(("subject", "object"), characters)}


def read_relations(path: str, format: str, issues: DataIssues, with_labels: bool = True) -> Iterator[Relation]:
    """Yields the relations of a file one by one.

    Records of TACRED and OpenNRE are in one JSON array or one per line. PTB brackets (-LRB- and so on) become brackets,
    as in the reference. In SemEval's format e1 is the subject and e2 the object, words are split at white space and at
    the tags of the entities, and there are no types. Scorers go by order and need no ids: a relation without one gets
    the number of its record and, with labels, one with the id of an earlier one gets a number after it. Both are
    counted.

    Args:
      format: one of FORMATS; "auto" detects JSON by its first character, [ or {.
      with_labels: every relation must have a name.

    Raises:
      UserError: naming file, line or record, and id of an error.
    """
    first = reading.first_characters(path)[:1]
    if format == "semeval" or (format == "auto" and first not in ("[", "{")):
        relations = _semeval(path, issues, with_labels)
    else:
        records = reading.json_lines(path, issues) if first == "{" else reading.numbered_json_items(path, "", issues)
        relations = (parse_relation(record, location, with_labels) for location, record in _with_ids(records, issues))
    for relation in reading.number_repeats(relations, issues) if with_labels else relations:
        if relation.subject[0] <= relation.object[1] and relation.object[0] <= relation.subject[1]:
            issues.add("relations whose entities overlap", f"{relation.location} (id {relation.id})")
        yield relation


def _with_ids(records: Iterable[tuple[str, dict[str, Any]]],
              issues: DataIssues) -> Iterator[tuple[str, dict[str, Any]]]:
    """Gives a record without an id its number, which is at the end of its location."""
    for location, record in records:
        if record.get("id") is None:
            issues.add("relations without an id, which get the number of their record", location)
            record = record | {"id": location.rpartition(":")[2]}
        yield location, record


def parse_relation(record: dict[str, Any], location: str, with_labels: bool) -> Relation:
    """The relation of a record of TACRED or OpenNRE, or of one as for `located`; its id may be the location."""
    id = reading.name_field(record, "id", location)
    place = location if id == location else f"{location}: id {id!r}"
    group = id if record.get("docid") is None else reading.name_field(record, "docid", place)
    if "h" in record and "t" in record:
        record = _of_open_nre(record, place)
    if "text" in record and "token" not in record:
        return dataclasses.replace(located(record, place), id=id, location=location, group=group,
                                   relation=_name(record, place, with_labels))
    words = reading.field(record, "token", place, list)
    if not words or not all(isinstance(word, str) for word in words):
        raise UserError(f"{place}: field 'token' must be a nonempty list of words; it is {words!r:.80}")
    words = tuple(reading.without_escapes(word) for word in words)
    return Relation(id, location, group, words, _span(record, "subj", len(words), place),
                    _span(record, "obj", len(words), place), reading.field(record, "subj_type", place),
                    reading.field(record, "obj_type", place), _name(record, place, with_labels))


def _name(record: Mapping[str, Any], place: str, with_labels: bool) -> str | None:
    """The name of the relation, if it is known."""
    if not with_labels and record.get("relation") is None:
        return None
    name = reading.field(record, "relation", place)
    if not name.strip():
        raise UserError(f"{place}: the name of the relation is empty; fill it in")
    return name


def _of_open_nre(record: dict[str, Any], place: str) -> dict[str, Any]:
    """A record with the positions [start, end) of head "h" and tail "t", in words or characters, by our names."""
    spans: dict[str, Any] = {}
    for entity, name, short in (("h", "subject", "subj"), ("t", "object", "obj")):
        match reading.field(record, entity, place, dict).get("pos"):
            case [int(start), int(end)]:
                spans |= {name: (start, end), f"{short}_start": start, f"{short}_end": end - 1, f"{short}_type": ""}
            case value:
                raise UserError(f"{place}: the position 'pos' of {entity!r} is {value!r:.80}; give [start, end]")
    return record | spans


def _span(record: dict[str, Any], name: str, count: int, place: str) -> Span:
    first, last = (reading.field(record, f"{name}_{end}", place, int) for end in ("start", "end"))
    if not 0 <= first <= last < count:
        raise UserError(f"{place}: {name}_start is {first} and {name}_end {last}: they must be word numbers from 0 to "
                        f"{count - 1}, the first not after the last; fix the record")
    return first, last


def tagged(text: str, id: str, location: str, relation: str | None = None) -> Relation:
    """The relation of a sentence with <e1>, </e1>, <e2> and </e2> around subject and object, without types."""
    plain, characters = _untagged(text, f"{location}: id {id!r}")
    words, (subject, object) = _words(plain, characters)
    return Relation(id, location, id, words, subject, object, "", "", relation, plain, characters)


def located(record: Mapping[str, Any], location: str) -> Relation:
    """The relation of {"text", "subject", "object"}, the last two as characters [start, end), with "subject_type" and
    "object_type" if entities have types."""
    text, spans = reading.field(record, "text", location), {}
    for name in ("subject", "object"):
        match reading.field(record, name, location, (list, tuple)):
            case [int() as start, int() as end] if 0 <= start < end <= len(text):
                spans[name] = start, end
            case value:
                raise UserError(f"{location}: {name} is {value!r:.80}: give [start, end], characters of the text of "
                                f"length {len(text)}")
    characters = spans["subject"], spans["object"]
    for name, (start, end) in spans.items():
        if not text[start:end].strip():
            raise UserError(f"{location}: {name} {spans[name]} contains only white space; give the characters of an "
                            "entity")
    words, (subject, object) = _words(text, characters)
    return Relation(location, location, location, words, subject, object, record.get("subject_type", ""),
                    record.get("object_type", ""), None, text, characters)


def _words(text: str, characters: tuple[Span, Span]) -> tuple[tuple[str, ...], tuple[Span, Span]]:
    """Words of a sentence, split at white space and entity boundaries, and the word spans of subject and object."""
    cuts = sorted({0, len(text), *itertools.chain(*characters)})
    words: list[str] = []
    numbers = {0: 0}  # number of words before a character
    for start, end in itertools.pairwise(cuts):
        words += text[start:end].split()
        numbers[end] = len(words)
    subject, object = ((numbers[start], numbers[end] - 1) for start, end in characters)
    return tuple(words), (subject, object)


def _semeval(path: str, issues: DataIssues, with_labels: bool) -> Iterator[Relation]:
    for location, id, text, relation in _blocks(path, issues):
        place = f"{location}: id {id!r}"
        if with_labels and relation is None:
            raise UserError(f"{place}: no relation on the line after the sentence; write one, or Other")
        yield tagged(text, id, location, relation)


def _blocks(path: str, issues: DataIssues) -> Iterator[tuple[str, str, str, str | None]]:
    """Yields location, id, sentence without quotes, and relation, if given, of each block."""
    block: tuple[str, str, str] | None = None
    relation = None
    for number, line in reading.lines(path, issues):
        if match := _NUMBERED.fullmatch(line):
            if block:
                yield *block, relation
            text = match[2].strip()
            quoted = len(text) > 1 and text[0] == text[-1] == '"'
            block, relation = (f"{path}:{number}", match[1], text[1:-1] if quoted else text), None
        elif line.strip() and not line.startswith("Comment"):
            if block is None or relation is not None:
                raise UserError(f"{path}:{number}: {line!r:.80} is not a line of SemEval-2010 Task 8: allowed are a "
                                "number, a tab and a sentence; its relation; a comment; a blank line")
            relation = line.strip()
    if block:
        yield *block, relation


def _untagged(text: str, place: str) -> tuple[str, tuple[Span, Span]]:
    """A sentence without tags, and the characters of its entities."""
    parts = _ENTITY_TAG.split(text)
    plain, bounds = "", {}
    for part in parts:
        if part in _ENTITY_TAGS:
            bounds[part] = len(plain)
        else:
            plain += part
    once = all(parts.count(tag) == 1 for tag in _ENTITY_TAGS)
    if not (once and all(plain[bounds[f"<{name}>"]:bounds[f"</{name}>"]].strip() for name in ("e1", "e2"))):
        raise UserError(f"{place}: the sentence needs <e1>words</e1> and <e2>words</e2>, each once: {text!r:.120}")
    first, second = (_without_space(plain, bounds[f"<{name}>"], bounds[f"</{name}>"]) for name in ("e1", "e2"))
    return plain, (first, second)


def _without_space(text: str, start: int, end: int) -> Span:
    """The span without white space at its ends."""
    inside = text[start:end]
    return start + len(inside) - len(inside.lstrip()), start + len(inside.rstrip())
