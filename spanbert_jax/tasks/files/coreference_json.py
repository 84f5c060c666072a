"""Documents with chains of mentions as JSON records, with words or a text."""
import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files import reading
from spanbert_jax.tasks.files.coreference_documents import (
    CoreferenceDocument,
    Span,
    check_mentions,
    clean_word,
    from_text,
    from_words,
    from_words_of_text,
    name_place,
    sorted_chains,
    words_of,
)

_CONTENT = ("sentences", "tokens", "text")
_LABELS = ("clusters", "chains")
_SHAPES = {"tokens": "one list of words, such as ['Ann', 'left']",
           "sentences": "a list of words for each sentence, such as [['Ann', 'left'], ['She', 'ran']]",
           "speakers": "a name, or null, for each word or each sentence"}
_PART = re.compile(r"(.+_[0-9]{4})_[0-9]+")  # of a document of OntoNotes, such as nw/wsj/00/wsj_0020_1


def read_records(path: str, issues: DataIssues, with_labels: bool) -> Iterator[CoreferenceDocument]:
    """Yields the document of each object of a JSON file, as `parse_record`."""
    for location, record in reading.json_records(path, issues):
        yield parse_record(record, location.rpartition(":")[2], location, issues, with_labels)


def parse_record(record: Mapping[str, Any], id: str, location: str, issues: DataIssues,
                 with_labels: bool) -> CoreferenceDocument:
    """The document of a record.

    It has "sentences", lists of words; "tokens", words, whose sentences are found by punctuation; or "text", whose
    words and sentences are found, unless it comes with one of the others. Labels are "clusters" or "chains", lists of
    lists of mentions. A mention is one of

    - a list of two numbers: with words the first and the last word, INCLUSIVE, as in the jsonlines of the field; with
      a text alone characters [start, end),
    - {"words": [first, end]}, half-open, as in predictions; not with a text alone,
    - {"start", "end"}, characters [start, end) of the text, or of the words joined as in `from_words`.

    "mentions", a list, and "given_chains" are optional, as is "speakers": one for each word, flat or in a list for each
    sentence, or one for each of "sentences".

    Args:
      id: if there is no "doc_key" or "id".

    Raises:
      UserError: naming location and id: a field is missing or of another type, or a mention is outside the document.
    """
    name = next((name for name in ("doc_key", "id") if record.get(name) is not None), "")
    id = reading.name_field(record, name, location) if name else id
    place = name_place(id, location)
    record = {name: value for name, value in record.items() if value is not None}
    content = [name for name in _CONTENT if name in record]
    if not content or content[:2] == ["sentences", "tokens"]:
        raise UserError(f"{place}: {' and '.join(map(repr, content)) or 'no content'}; give 'sentences' (lists of "
                        "words), 'tokens' (words) or 'text'")
    labels = [name for name in _LABELS if name in record] if with_labels else []
    if with_labels and len(labels) != 1:
        raise UserError(f"{place}: {' and '.join(map(repr, labels)) or 'no chains'}; give one of 'clusters' and "
                        "'chains', an empty list if there are none")
    given = ["given_chains"] if "given_chains" in record else []
    chains = {name: _chains(record, name, place) for name in labels + given}
    if "mentions" in record:
        chains["mentions"] = [reading.field(record, "mentions", place, (list, tuple))]
    match = _PART.fullmatch(id)
    group = match[1] if match else id if name else location
    if content == ["text"]:
        document = _with_text(record, id, location, group, place, chains)
    else:
        document = _with_words(record, content[0], id, location, group, place, issues)
    spans = {name: [[_span(mention, document, content == ["text"], name, place, issues) for mention in chain]
                    for chain in listed] for name, listed in chains.items()}
    check_mentions(document, itertools.chain.from_iterable(itertools.chain.from_iterable(spans.values())))
    found = {name: sorted_chains(listed, place, issues) for name, listed in spans.items() if name != "mentions"}
    return dataclasses.replace(
        document, chains=found[labels[0]] if labels else None, given_chains=found.get("given_chains"),
        mentions=tuple(sorted(set(spans["mentions"][0]))) if "mentions" in spans else None)


def _chains(record: Mapping[str, Any], name: str, place: str) -> Sequence[Sequence[Any]]:
    chains = reading.field(record, name, place, (list, tuple))
    for number, chain in enumerate(chains, 1):
        if not isinstance(chain, (list, tuple)):
            raise UserError(f"{place}: entry {number} of {name!r} is {chain!r:.80}; give a list of mentions")
    return chains


def _with_text(record: Mapping[str, Any], id: str, location: str, group: str, place: str,
               chains: Mapping[str, Sequence[Sequence[Any]]]) -> CoreferenceDocument:
    if "speakers" in record:
        raise UserError(f"{place}: 'speakers' of a text, whose words are not known; give 'tokens' or 'sentences'")
    text = reading.field(record, "text", place)
    cuts = {edge for name, listed in chains.items() for mention in itertools.chain.from_iterable(listed)
            for edge in _characters(mention, True, len(text), name, place)}
    return from_text(id, location, group, text, cuts)


def _with_words(record: Mapping[str, Any], name: str, id: str, location: str, group: str, place: str,
                issues: DataIssues) -> CoreferenceDocument:
    listed = _list_of(record[name], name, place, (list, tuple) if name == "sentences" else (str,))
    sentences = listed if name == "sentences" else [listed]
    counts = [len(_list_of(words, name, place, (str,))) for words in sentences]
    words = [clean_word(word, place, issues) for word in itertools.chain.from_iterable(sentences)]
    starts = [start for start, count in zip(itertools.accumulate(counts, initial=0), counts) if count]
    given = starts if name == "sentences" else None
    if "text" in record:
        text = reading.field(record, "text", place)
        document = from_words_of_text(id, location, group, words, given, text)
    else:
        document = from_words(id, location, group, words, given)
    if "speakers" not in record:
        return document
    speakers = _speakers(record["speakers"], counts if name == "sentences" else (), place)
    if len(speakers) != len(words):
        raise UserError(f"{place}: {format_plural(len(speakers), 'speaker')} for {format_plural(len(words), 'word')}; "
                        f"give one for each word{' or each sentence' * (name == 'sentences')}")
    return dataclasses.replace(document, speakers=speakers if any(speakers) else None)


def _speakers(value: Any, sizes: Sequence[int], place: str) -> tuple[str, ...]:
    """The speakers of words, "" for none, of a list, of a list for each sentence, or of one for each sentence.

    Args:
      sizes: words of each sentence, if sentences are given.
    """
    listed = _list_of(value, "speakers", place, (str, list, tuple, type(None)))
    if any(isinstance(entry, (list, tuple)) for entry in listed):
        listed = list(itertools.chain.from_iterable(
            _list_of(entry, "speakers", place, (str, type(None))) for entry in listed))
    elif len(listed) == len(sizes) != sum(sizes):
        listed = [speaker for speaker, size in zip(listed, sizes) for _ in range(size)]
    return tuple("" if speaker in (None, "-", "_") else speaker for speaker in listed)


def _list_of(value: Any, name: str, place: str, kinds: tuple[type, ...]) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise UserError(f"{place}: {value!r:.80} in field {name!r}; give {_SHAPES[name]}")
    for number, entry in enumerate(value, 1):
        if not isinstance(entry, kinds):
            raise UserError(f"{place}: entry {number} of a list in field {name!r} is {entry!r:.80}; give "
                            f"{_SHAPES[name]}")
    return list(value)


def _span(mention: Any, document: CoreferenceDocument, of_text: bool, name: str, place: str,
          issues: DataIssues) -> Span:
    """The words of a mention."""
    count = len(document.words)
    match mention:
        case [first, last] if not of_text and _are_numbers(first, last) and 0 <= first <= last < count:
            return first, last + 1
        case {"words": [first, end]} if not of_text and _are_numbers(first, end) and 0 <= first < end <= count:
            return first, end
    if not of_text and (not isinstance(mention, Mapping) or "words" in mention):
        raise UserError(f"{place}: {mention!r:.80} in {name!r} is not a mention: give the numbers of its first and "
                        f"last word, both included, of {count} from 0, or {{'words': [first, end]}}, end excluded")
    start, end = _characters(mention, of_text, len(document.text), name, place)
    first, last = words_of(document, start, end)
    if first == last:
        raise UserError(f"{place}: {mention!r:.80} in {name!r} contains no word; fix the record")
    if not of_text and document.text[start:end].strip() != document.text[slice(*document.characters((first, last)))]:
        issues.add("mentions that begin or end inside a word, extended to whole words", place)
    return first, last


def _characters(mention: Any, of_text: bool, length: int, name: str, place: str) -> Span:
    """Characters [start, end) of a mention."""
    match mention:
        case {"start": start, "end": end} if _are_numbers(start, end) and 0 <= start < end <= length:
            return start, end
        case [start, end] if of_text and _are_numbers(start, end) and 0 <= start < end <= length:
            return start, end
    raise UserError(f"{place}: {mention!r:.80} in {name!r} is not a mention: give characters [start, end) of the text "
                    f"of length {length}")


def _are_numbers(first: Any, last: Any) -> bool:
    return type(first) is int and type(last) is int
