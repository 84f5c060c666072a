"""Documents with chains of mentions, and how they are made from words or from a text."""
import bisect
import dataclasses
from collections.abc import Iterable, Sequence

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files import reading
from spanbert_jax.text import sentence_spans, word_spans

Span = tuple[int, int]  # half-open
Chains = tuple[tuple[Span, ...], ...]  # spans in words: sorted mentions, chains sorted by their first mentions

MOST_WORDS = 1_000_000  # of a document: the longest novels have half of them
MOST_CHARACTERS = 5_000_000
MOST_MENTIONS = 1_000_000
MOST_MENTION_CHARACTERS = 10_000_000  # of all mentions of a document together: predictions hold the text of each
_BLOCK = 250_000  # characters of a long text whose words are counted at a time
BLANK_WORD = "_"
_STOPS = frozenset(".!?…。！？｡।؟۔")
_CLOSERS = frozenset(("''", "”", "’", "»", ")", "]", "」", "』", "）", "】", "》"))


@dataclasses.dataclass(frozen=True)
class GapLabels:
    """A pronoun and two names of GAP, as spans in words."""
    pronoun: Span
    a: Span
    b: Span
    a_coref: bool | None  # whether the pronoun refers to the same person; None if unknown
    b_coref: bool | None
    gender: str  # "masculine" or "feminine", of the pronoun


@dataclasses.dataclass(frozen=True)
class CoreferenceDocument(reading.Example):
    """A text with its words, and the chains of mentions that refer to the same entity.

    Mentions may be nested and may cross, also in one chain, and a span may be in several chains.
    """
    text: str
    words: tuple[Span, ...]  # characters [start, end) of each word, ascending
    sentences: tuple[int, ...]  # number of the first word of each sentence, ascending from 0; empty without words
    chains: Chains | None = None  # the correct chains; None if unknown
    speakers: tuple[str, ...] | None = None  # of each word, "" if unknown; None if all are
    mentions: tuple[Span, ...] | None = None  # sorted; only these may be linked
    given_chains: Chains | None = None  # to start from
    partial: bool = False  # the labels cover `mentions` only: other mentions may exist, and are in no chain
    gap: GapLabels | None = None

    def word(self, number: int) -> str:
        """The text of a word."""
        start, end = self.words[number]
        return self.text[start:end]

    def characters(self, span: Span) -> Span:
        """Characters [start, end) of a span of words."""
        return self.words[span[0]][0], self.words[span[1] - 1][1]


def name_place(id: str, location: str) -> str:
    """Location and id of a document, for errors."""
    return location if id == location else f"{location}: id {id!r:.80}"


def clean_word(word: str, place: str, issues: DataIssues) -> str:
    """A word as it stands in a text: treebanks' escapes replaced, inner white space as single spaces."""
    cleaned = " ".join(word.split())
    if not cleaned:
        issues.add(f"blank words, replaced by {BLANK_WORD}", place)
        return BLANK_WORD
    if cleaned in ("/.", "/?", "/-"):  # OntoNotes
        return cleaned[1:]
    return reading.without_escapes(cleaned)


def from_words(id: str, location: str, group: str, words: Sequence[str],
               sentences: Sequence[int] | None) -> CoreferenceDocument:
    """A document of clean words: its text has spaces between words and line breaks between sentences.

    Args:
      sentences: numbers of the first words of sentences; None to find sentences by punctuation.
    """
    _check_size(len(words), "words", MOST_WORDS, id, location)
    starts = sentences_of_words(words) if sentences is None else tuple(sentences)
    offsets, end, first = [], -1, frozenset(starts)
    parts = []
    for number, word in enumerate(words):
        parts += [("\n" if number in first else " ") if number else "", word]
        offsets.append((end + 1, end + 1 + len(word)))
        end = offsets[-1][1]
    return CoreferenceDocument(id, location, group, "".join(parts), tuple(offsets), starts)


def from_text(id: str, location: str, group: str, text: str, cuts: Iterable[int] = ()) -> CoreferenceDocument:
    """A document of a text, whose words and sentences are found, with words split before the characters `cuts`."""
    _check_size(len(text), "characters", MOST_CHARACTERS, id, location)
    if len(text) > MOST_WORDS:  # texts of signs have too many words to be in memory at once
        blocks = range(0, len(text), _BLOCK)
        count = sum(len(word_spans(text[start:start + _BLOCK])) for start in blocks)
        _check_size(count - len(blocks), "words", MOST_WORDS, id, location)  # a border may divide a word
    words = tuple(word_spans(text, cuts))
    _check_size(len(words), "words", MOST_WORDS, id, location)
    return CoreferenceDocument(id, location, group, text, words, _sentences_of_text(text, words))


def from_words_of_text(id: str, location: str, group: str, words: Sequence[str], sentences: Sequence[int] | None,
                       text: str) -> CoreferenceDocument:
    """A document of the words of a text, in which they are found. Arguments as of `from_words` and `from_text`."""
    _check_size(len(text), "characters", MOST_CHARACTERS, id, location)
    _check_size(len(words), "words", MOST_WORDS, id, location)
    spans, end = list[Span](), 0
    for number, word in enumerate(words, 1):
        start = text.find(word, end)
        if start < 0 or any(character.isalnum() for character in text[end:start]):
            raise UserError(f"{name_place(id, location)}: word {number}, {word!r:.80}, is not in the text behind the "
                            "words before it; give the words of the text, or no text")
        end = start + len(word)
        spans.append((start, end))
    starts = _sentences_of_text(text, spans) if sentences is None else tuple(sentences)
    return CoreferenceDocument(id, location, group, text, tuple(spans), starts)


def _sentences_of_text(text: str, words: Sequence[Span]) -> tuple[int, ...]:
    """The first words of the sentences of a text, found by punctuation and blank lines."""
    firsts = [start for start, _ in words]
    numbers = (bisect.bisect_left(firsts, start) for start, _ in sentence_spans(text))
    return tuple(dict.fromkeys(number for number in (0, *numbers) if number < len(words)))


def _check_size(size: int, unit: str, most: int, id: str, location: str) -> None:
    if size > most:
        raise UserError(f"{name_place(id, location)}: {size:,} {unit}; {most:,} are the most: divide the document")


def check_mentions(document: CoreferenceDocument, mentions: Iterable[Span]) -> None:
    """Raises UserError if mentions of a document are too many, or too long together."""
    count = total = 0
    for mention in mentions:
        start, end = document.characters(mention)
        count, total = count + 1, total + end - start
    _check_size(count, "mentions", MOST_MENTIONS, document.id, document.location)
    _check_size(total, "characters in mentions", MOST_MENTION_CHARACTERS, document.id, document.location)


def sentences_of_words(words: Sequence[str]) -> tuple[int, ...]:
    """Numbers of the first words of sentences, found by stops that are words of their own.

    Closing quotes and brackets after a stop belong to it; of straight quotes, every second one closes. A lower-case
    letter after them continues the sentence.
    """
    starts, stopped, quoted = [0] * bool(words), False, False
    for number, word in enumerate(words):
        closes = word in _CLOSERS or (word == '"' and quoted)
        quoted = quoted != (word == '"')
        if stopped and not closes and not _STOPS.issuperset(word):
            if not word[0].islower():
                starts.append(number)
            stopped = False
        stopped = stopped or _STOPS.issuperset(word)
    return tuple(starts)


def words_of(document: CoreferenceDocument, start: int, end: int) -> Span:
    """The words that contain characters [start, end) of the text; an empty span if there is none."""
    first = bisect.bisect_right(document.words, start, key=lambda word: word[1])
    return first, max(first, bisect.bisect_left(document.words, end, key=lambda word: word[0]))


def sorted_chains(chains: Iterable[Iterable[Span]], place: str, issues: DataIssues) -> Chains:
    """Chains in order, without empty ones, each mention once."""
    ordered = []
    for chain in map(list, chains):
        mentions = tuple(sorted(set(chain)))
        if not mentions:
            issues.add("empty chains, left out", place)
            continue
        if len(mentions) < len(chain):
            issues.add("mentions that a chain has twice, kept once", place, len(chain) - len(mentions))
        ordered.append(mentions)
    return tuple(sorted(ordered))
