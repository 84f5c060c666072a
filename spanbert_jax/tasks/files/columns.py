"""Files of tagged words: CoNLL columns and JSON lines; also JSON lines of plain text to predict tags for."""
import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokenizers import Regex, pre_tokenizers

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files import reading

Span = tuple[int, int]

_BLANKS = " \t"
_DOCUMENT = "-DOCSTART-"
_COMMENT = "# "
_TAG = re.compile(r"O|[BIES]-\S.*")
_INDEXED = re.compile(r"(.+?)[0-9]+", re.DOTALL)  # a character and its index in a word
_TAG_FIELDS = ("tags", "ner_tags")
# Splits text as BERT's tokenizer: at white space and around punctuation and Chinese characters with their marks.
_SPLITTER = pre_tokenizers.Sequence([
    pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Split(Regex(r"\p{Han}\p{M}*"), "isolated")])


@dataclasses.dataclass(frozen=True)
class Sentence(reading.Example):
    """Words and their tags."""
    words: tuple[str, ...]  # at least one
    tags: tuple[str, ...] | None  # one per word, as in the file; None if unknown
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


def read_sentences(path: str, columns: Columns, issues: DataIssues, with_labels: bool = True) -> Iterator[Sentence]:
    """Yields the sentences of a file one by one.

    Files named .jsonl, .jsonlines or .ndjson have a sentence per line: {"tokens": [...], "tags": [...]}, or "ner_tags",
    or without tags {"text": "..."}; "id" is optional. Other files have a word with its tag per line, and a blank line
    between sentences; columns are separated by tabs if a line has a tab, else by spaces. A line that starts with
    -DOCSTART- starts a document. A line before a sentence that starts with "# " and does not end with a tag is a
    comment.

    Args:
      columns: of CoNLL files.
      with_labels: tags must be present; otherwise they are used if a sentence has all of them.

    Raises:
      UserError: naming file and line: a column or field is missing, or a tag is not valid.
    """
    if reading.is_json_lines(path):
        for location, record in reading.json_lines(path, issues):
            sentence = parse_sentence(record, location, with_labels)
            if sentence.words or not with_labels:  # every input gets a prediction
                yield sentence
            else:
                issues.add("sentences without words, left out", location)
    else:
        yield from _of_columns(path, columns, issues, with_labels)


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
        elif line and not words and line.startswith(_COMMENT) and not _TAG.fullmatch(line.split()[-1]):
            issues.add("comment lines, skipped", location)
        elif line:
            first = first if words else number
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
    if isinstance(tag, str) and is_tag(tag):
        return tag
    if with_labels:
        raise UserError(f"{location}: {tag!r:.80} is not a tag: allowed are O, and an entity type after B- or I- (in "
                        "BIOES also E- and S-)")
    return None


def parse_sentence(record: Mapping[str, Any], location: str, with_labels: bool = False) -> Sentence:
    """The sentence of a JSON object, in the format of `read_sentences`; it may have no words."""
    id = reading.name_field(record, "id", location) if "id" in record else location.rpartition(":")[2]
    text, offsets, tags = None, None, None
    if "tokens" not in record and "text" in record and not with_labels:
        text = reading.field(record, "text", location)
        offsets = tuple(span for _, span in _SPLITTER.pre_tokenize_str(text))
        words = tuple(text[start:end] for start, end in offsets)
    else:
        words = tuple(reading.field(record, "tokens", location, list))
        if not all(isinstance(word, str) for word in words):
            raise UserError(f"{location}: 'tokens' must be a list of words; it is {list(words)!r:.80}")
        tags = _tags(record, len(words), location, with_labels)
    return Sentence(id, location, location, words, tags, None, text, offsets)


def _tags(record: Mapping[str, Any], count: int, location: str, with_labels: bool) -> tuple[str, ...] | None:
    name = next((name for name in _TAG_FIELDS if name in record), None)
    if name is None and not with_labels:
        return None
    values: Sequence[Any] = reading.field(record, name or _TAG_FIELDS[0], location, list)
    if len(values) != count:
        raise UserError(f"{location}: {len(values)} tags for {count} words; give one tag per word")
    return _all_known([_tag(value, location, with_labels) for value in values])


def _all_known(tags: Sequence[str | None]) -> tuple[str, ...] | None:
    """The tags, or None if one is unknown."""
    known = tuple(tag for tag in tags if tag is not None)
    return known if len(known) == len(tags) else None
