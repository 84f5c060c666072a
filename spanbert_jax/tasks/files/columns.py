"""Files of tagged words or spans: CoNLL columns and JSON; also plain text in JSON to predict tags for."""
import bisect
import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokenizers import Regex, pre_tokenizers

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files import reading

Span = tuple[int, int]

_BLANKS = " \t"
_DOCUMENT = "-DOCSTART-"
_COMMENTS = ("# ", "#\t")
_HEAD_LINES = 100  # which tell columns from sentences
_LONGEST_WORD = 5  # Han characters; most words of scripts without spaces have fewer
_MOST_WORDS = _MOST_CHARACTERS = 1_000_000  # of a sentence
_TAG = re.compile(r"O|[BIES]-\S.*")
_IN_BIOES = {"L-": "E-", "U-": "S-", "M-": "I-"}  # prefixes of BILOU and BMES
_INDEXED = re.compile(r"(.+?)[0-9]+", re.DOTALL)  # a character and its index in a word
_TAG_FIELDS = ("tags", "ner_tags")
_SPAN_FIELDS = ("label", "labels")
# Splits text as BERT's tokenizer: at white space and around punctuation and Chinese characters with their marks.
_SPLITTER = pre_tokenizers.Sequence([
    pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Split(Regex(r"\p{Han}\p{M}*"), "isolated")])


@dataclasses.dataclass(frozen=True)
class Sentence(reading.Example):
    """Words and their tags."""
    words: tuple[str, ...]  # at least one
    tags: tuple[str, ...] | None  # one per word, those of BILOU and BMES as in BIOES; None if unknown
    line: int | None = None  # of the first word, if each word is on a line of its own; else None
    text: str | None = None  # the text that contains the words; None if only words are known
    offsets: tuple[Span, ...] | None = None  # characters [start, end) of each word in the text; None without one

    def word_location(self, word: int) -> str:
        """Location of a word, for messages."""
        if self.line is None:
            return f"{self.location}, word {word + 1} ({self.words[word]})"
        return f"{self.location.removesuffix(f':{self.line}')}:{self.line + word}"

    def located(self) -> tuple[str, tuple[Span, ...]]:
        """Text and offsets of the words; without a text, of the words joined by single spaces."""
        if self.text is not None and self.offsets is not None:
            return self.text, self.offsets
        offsets, end = [], -1
        for word in self.words:
            offsets.append((end + 1, end + 1 + len(word)))
            end = offsets[-1][1]
        return " ".join(self.words), tuple(offsets)


@dataclasses.dataclass(frozen=True)
class Columns:
    """Columns of word and tag; 0 is the first, -1 the last."""
    word: int = 0
    tag: int = -1
    # Words end in their index in a longer word, to be removed, as in Weibo's files, where each character is a word.
    strip_index: bool = False
    names: tuple[str, ...] = ()  # of tags that are numbers in JSON


def read_sentences(path: str, columns: Columns, issues: DataIssues, with_labels: bool = True) -> Iterator[Sentence]:
    """Yields the sentences of a file one by one.

    JSON files have a sentence per object: {"tokens": [...], "tags": [...]}, or "ner_tags", which may be numbers of
    `columns.names`; or {"text": "...", "label": [[start, end, type], ...]} with characters of the text, where entities
    extend to whole words; or without tags {"text": "..."}. "id" is optional. Other files have a word with its tag per
    line, and a blank line between sentences; columns are separated by tabs if a line has a tab, else by spaces. A line
    that starts with -DOCSTART- starts a document. A line before a sentence that starts with "#" and a space or tab and
    does not end with a tag is a comment. Without `with_labels`, a file whose lines are no columns has a sentence per
    line.

    Args:
      columns: of CoNLL files, and names of tags.
      with_labels: tags must be present; otherwise they are used if a sentence has all of them.

    Raises:
      UserError: naming file and line: a column or field is missing, or a tag is not valid.
    """
    if reading.is_json(path):
        for location, record in reading.json_records(path, issues):
            sentence = parse_sentence(record, location, issues, with_labels, columns.names)
            if sentence.words or not with_labels:  # every input gets a prediction
                yield sentence
            else:
                issues.add("sentences without words, left out", location)
    elif reading.without_compression(path).lower().endswith(".csv"):
        raise UserError(f"{path}: a table of CSV, which is not read; give a word with its tag per line, with a tab or "
                        'spaces between them, or JSON lines such as {"text": "..."}')
    elif not with_labels and _has_sentences(path, columns):
        for number, line in reading.lines(path, issues):
            if line.strip():
                location = f"{path}:{number}"
                issues.add("lines without columns of words and tags, each read as a sentence", location)
                yield parse_sentence({"text": line}, location, issues)
    else:
        yield from _of_columns(path, columns, issues, with_labels)


def _has_sentences(path: str, columns: Columns) -> bool:
    """Whether a file has a sentence per line: most lines have several words, and they are no columns.

    Columns have tabs between them, or most lines have a tag in its column, or all lines have the same number of words.
    A line without spaces has several words if it splits into more than `_LONGEST_WORD`.
    """
    head = [line for _, line in itertools.islice(reading.lines(path, DataIssues()), _HEAD_LINES)]
    if any("\t" in line or line.startswith(_DOCUMENT) for line in head):
        return False
    rows = [line.split() for line in head if line.strip() and not line.startswith(_COMMENTS)]
    several = [row for row in rows if len(row) > 1 or len(_SPLITTER.pre_tokenize_str(row[0][:99])) > _LONGEST_WORD]
    tagged = sum(-len(row) <= columns.tag < len(row) and is_tag(_in_bioes(row[columns.tag])) for row in several)
    same = len(rows) > 1 and len(rows[0]) > 1 and len(set(map(len, rows))) == 1
    return 2 * len(several) > len(rows) and 2 * tagged < len(several) and not same


def _of_columns(path: str, columns: Columns, issues: DataIssues, with_labels: bool) -> Iterator[Sentence]:
    words: list[str] = []
    tags: list[str | None] = []
    count, document, first = 0, "", 0
    for number, line in itertools.chain(reading.lines(path, issues), [(0, "")]):  # a blank line ends a sentence
        location, line = f"{path}:{number}", line.rstrip(_BLANKS)
        new_document = line.startswith(_DOCUMENT)
        if words and (not line or new_document):
            count, place = count + 1, f"{path}:{first}"
            yield Sentence(str(count), place, document or place, tuple(words), _all_known(tags), first)
            words, tags = [], []
        if new_document:
            document = location
        elif line and not words and line.startswith(_COMMENTS) and not is_tag(_in_bioes(line.split()[-1])):
            issues.add("comment lines, skipped", location)
        elif line:
            first = first if words else number
            if len(words) == _MOST_WORDS:
                raise UserError(f"{path}:{first}: a sentence of more than {_MOST_WORDS:,} lines; put a blank line "
                                "after each sentence")
            word, tag = _fields(line, columns, location, with_labels)
            words.append(word)
            tags.append(tag)


def _fields(line: str, columns: Columns, location: str, with_labels: bool) -> tuple[str, str | None]:
    """Word and tag of a line; the tag is None if it is missing and not required."""
    fields = [field.strip(" ") for field in line.split("\t")] if "\t" in line else re.split(" +", line)
    at = {name: column + (len(fields) if column < 0 else 0)
          for name, column in (("word", columns.word), ("tag", columns.tag))}
    lacks_tag = not 0 <= at["tag"] < len(fields) or at["tag"] == at["word"]
    if not 0 <= at["word"] < len(fields) or (with_labels and lacks_tag):
        raise UserError(f"{location}: too few columns ({len(fields)}) in {line!r:.80}: the word must be in column "
                        f"{columns.word} and its tag in column {columns.tag} (config.task.word_column, tag_column)")
    word = _word(fields[at["word"]], columns, location)
    return word, None if lacks_tag else _tag(fields[at["tag"]], location, with_labels)


def _word(word: str, columns: Columns, location: str) -> str:
    if not word:
        raise UserError(f"{location}: no word in column {columns.word}; fix the line, or leave it empty")
    if not columns.strip_index:
        return word
    match = _INDEXED.fullmatch(word)
    if not match:
        raise UserError(f"{location}: {word!r} does not end with an index, which config.task.strip_word_index removes; "
                        "unset it")
    return match[1]


def is_tag(text: str) -> bool:
    """Whether a text is a tag of BIO or BIOES."""
    return bool(_TAG.fullmatch(text))


def _tag(tag: Any, location: str, with_labels: bool) -> str | None:
    if isinstance(tag, str) and is_tag(_in_bioes(tag)):
        return _in_bioes(tag)
    if with_labels:
        numbers = "; config.task.tag_names names the tags that are numbers" if isinstance(tag, int) else ""
        raise UserError(f"{location}: {tag!r:.80} is not a tag: allowed are O, and an entity type after B- or I- (also "
                        f"E- and S- in BIOES, L- and U- in BILOU, M-, E- and S- in BMES){numbers}")
    return None


def _in_bioes(tag: str) -> str:
    return _IN_BIOES.get(tag[:2], tag[:2]) + tag[2:]


def parse_sentence(record: Mapping[str, Any], location: str, issues: DataIssues, with_labels: bool = False,
                   names: Sequence[str] = ()) -> Sentence:
    """The sentence of a JSON object, in the format of `read_sentences`; it may have no words."""
    id = reading.name_field(record, "id", location) if "id" in record else location.rpartition(":")[2]
    text, offsets, tags = None, None, None
    spans = next((name for name in _SPAN_FIELDS if name in record), None)
    if "tokens" not in record and "text" in record and (spans or not with_labels):
        text = reading.field(record, "text", location)
        if len(text) > _MOST_CHARACTERS:
            raise UserError(f"{location}: a sentence of {len(text):,} characters; {_MOST_CHARACTERS:,} are the most: "
                            "divide it")
        offsets = tuple(span for _, span in _SPLITTER.pre_tokenize_str(text))
        words = tuple(text[start:end] for start, end in offsets)
        if spans and with_labels:
            tags = _span_tags(reading.field(record, spans, location, list), text, offsets, location, issues)
    else:
        words = tuple(reading.field(record, "tokens", location, list))
        if not all(isinstance(word, str) for word in words):
            raise UserError(f"{location}: 'tokens' must be a list of words; it is {list(words)!r:.80}")
        tags = _tags(record, len(words), location, with_labels, names)
    return Sentence(id, location, location, words, tags, None, text, offsets)


def _span_tags(spans: Sequence[Any], text: str, words: Sequence[Span], location: str,
               issues: DataIssues) -> tuple[str, ...]:
    """BIO tags of words [start, end) for entities [start, end, type].

    Of several entities with the same word, the one that begins first is kept, and of these the longest.
    """
    found, tags = [], ["O"] * len(words)
    for span in spans:
        match span:
            case [int(start), int(end), str(kind)] if 0 <= start < end <= len(text) and kind.strip():
                found.append((start, end, kind.strip()))
            case _:
                raise UserError(f"{location}: {span!r:.80} is not an entity: give [start, end, type], with characters "
                                f"of the text of length {len(text)}")
    firsts, lasts = [first for first, _ in words], [last for _, last in words]
    for start, end, kind in sorted(found, key=lambda entity: (entity[0], -entity[1])):
        inside = range(bisect.bisect_right(lasts, start), bisect.bisect_left(firsts, end))
        place = f"{location} ({text[start:end]!r:.80})"
        if not inside or any(tags[number] != "O" for number in inside):
            issues.add("entities without a word of their own, left out", place)
            continue
        if (start, end) != (words[inside[0]][0], words[inside[-1]][1]):
            issues.add("entities that do not fall on word boundaries, extended to whole words", place)
        for number in inside:
            tags[number] = f"{'B' if number == inside[0] else 'I'}-{kind}"
    return tuple(tags)


def _tags(record: Mapping[str, Any], count: int, location: str, with_labels: bool,
          names: Sequence[str]) -> tuple[str, ...] | None:
    name = next((name for name in _TAG_FIELDS if name in record), None)
    if name is None and not with_labels:
        return None
    values: Sequence[Any] = reading.field(record, name or _TAG_FIELDS[0], location, list)
    if len(values) != count:
        raise UserError(f"{location}: {format_plural(len(values), 'tag')} for {format_plural(count, 'word')}; give "
                        "one tag per word")
    numbers = dict(enumerate(names))
    named = [numbers.get(value, value) if isinstance(value, int) else value for value in values]
    return _all_known([_tag(value, location, with_labels) for value in named])


def _all_known(tags: Sequence[str | None]) -> tuple[str, ...] | None:
    """The tags, or None if one is unknown."""
    known = tuple(tag for tag in tags if tag is not None)
    return known if len(known) == len(tags) else None
