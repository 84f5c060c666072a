"""Chains of mentions in columns: CoNLL-2012, its variant of LitBank, and the three columns of OntoGUM."""
import collections
import dataclasses
import os
import re
from collections.abc import Iterable, Iterator

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks.files import reading
from spanbert_jax.tasks.files.coreference_documents import (
    MOST_MENTIONS,
    MOST_WORDS,
    CoreferenceDocument,
    Span,
    clean_word,
    from_words,
    sorted_chains,
)

BEGIN = re.compile(r"#\s*begin document\b\s*(?:\((?P<name>.*)\);?(?:\s*part\s*(?P<part>[0-9]{1,9}))?|(?P<bare>.*))",
                   re.IGNORECASE)
_END = re.compile(r"#\s*end document\b", re.IGNORECASE)
_MARK = re.compile(r"\(([0-9]{1,9})\)|\(([0-9]{1,9})|([0-9]{1,9})\)|\|")  # a mention of one word, a start, an end
_NONE = ("_", "-", "*", "")
_THREE = 3  # columns: number of the word, word, chains
_MOST_LINE = 1_000_000  # characters of a word with its columns
_WORD, _SPEAKER = 3, 9  # columns of CoNLL-2012, from 0; chains are in the last one
CROSSING = "mentions that cross another one of their chain, written as nested"


def read_columns(path: str, issues: DataIssues, with_labels: bool) -> Iterator[CoreferenceDocument]:
    """Yields the documents of a file, each part of a document as one.

    A document is between "#begin document (NAME); part 000" and "#end document". Its id is NAME_0 with the number of
    the part, and its group NAME, so that parts are held out together; without a part the id is the name, or the file's
    name if it is empty. A line has tabs or else spaces between columns: either three, number, word and chains, or, as
    in CoNLL-2012, at least five with the word in the fourth, the speaker in the tenth, and chains in the last that is
    not empty. "(3" starts a mention of chain 3 and "3)" ends the last one of that chain that is open; bars between them
    are optional. A blank line ends a sentence. In a document of three columns without blank lines, sentences are found
    by punctuation.

    Raises:
      UserError: naming file and line: a line outside a document or with other columns, a chain that is not a number, a
        mention that is not opened or not closed.
    """
    open_document: _Document | None = None
    for number, line in reading.lines(path, issues):
        place = f"{path}:{number}"
        if (match := BEGIN.fullmatch(line.strip())) is not None:
            if open_document:
                issues.add("documents without #end document, ended by the next one", place)
                yield open_document.finish(issues)
            open_document = _begin(match, place, with_labels)
        elif _END.match(line):
            if open_document is None:
                raise UserError(f"{place}: #end document without #begin document; fix the file")
            yield open_document.finish(issues)
            open_document = None
        elif line.startswith("#"):
            issues.add("comment lines, skipped", place)
        elif line.strip():
            if open_document is None:
                raise UserError(f"{place}: a word outside a document; put '#begin document (NAME); part 000' before "
                                "the first one")
            open_document.add(line, place, issues)
        elif open_document:
            open_document.end_sentence()
    if open_document:
        issues.add("documents without #end document, ended by the end of the file", path)
        yield open_document.finish(issues)


def _begin(match: re.Match[str], place: str, with_labels: bool) -> "_Document":
    if match["part"] is not None:
        return _Document(f"{match['name']}_{int(match['part'])}", place, match["name"], with_labels)
    path = reading.without_compression(place.rpartition(":")[0])
    name = (match["name"] or match["bare"] or "").strip() or os.path.splitext(os.path.basename(path))[0]
    return _Document(name, place, name, with_labels)


def _fields(line: str, place: str) -> list[str]:
    """The columns of a line: three, or at least five."""
    if len(line) > _MOST_LINE:
        raise UserError(f"{place}: a word with columns of {len(line):,} characters; {_MOST_LINE:,} are the most")
    fields = [field.strip(" ") for field in line.split("\t")] if "\t" in line else re.split(" +", line.strip(" "))
    if len(fields) != _THREE and len(fields) <= _WORD + 1:
        raise UserError(f"{place}: number of columns: {len(fields)}; give three (number, word, chains), or those of "
                        "CoNLL-2012 with the word in the fourth and chains in the last")
    return fields


@dataclasses.dataclass
class _Document:
    """A document while its lines are read."""
    id: str
    location: str
    group: str
    with_labels: bool
    words: list[str] = dataclasses.field(default_factory=list)
    speakers: list[str] = dataclasses.field(default_factory=list)
    sentences: list[int] = dataclasses.field(default_factory=list)  # numbers of first words
    ended: bool = True  # whether the next word begins a sentence
    three: bool = False  # columns
    marks: int = 0  # starts, ends and bars
    chains: dict[int, list[Span]] = dataclasses.field(default_factory=lambda: collections.defaultdict(list))
    # Of each chain, first word and place of each mention that is open.
    open: dict[int, list[tuple[int, str]]] = dataclasses.field(default_factory=lambda: collections.defaultdict(list))

    def add(self, line: str, place: str, issues: DataIssues) -> None:
        """Adds a word."""
        fields = _fields(line, place)
        three = len(fields) == _THREE
        if not self.words:
            self.three = three
        elif three != self.three:
            raise UserError(f"{place}: number of columns: {len(fields)}, in a document whose first line has "
                            f"{'three' if self.three else 'more than three'}; use one format")
        if len(self.words) == MOST_WORDS:
            raise UserError(f"{place}: a document of more than {MOST_WORDS:,} words; divide it")
        if self.ended:
            self.sentences.append(len(self.words))
            self.ended = False
        speaker = fields[_SPEAKER] if len(fields) > _SPEAKER + 1 else ""
        self.speakers.append("" if speaker in _NONE else speaker)
        self.words.append(clean_word(fields[1 if three else _WORD], place, issues))
        marks = next((field for field in reversed(fields[2 if three else _WORD + 1:]) if field), "")
        if self.with_labels and marks not in _NONE:
            self._mark(marks, place)

    def _mark(self, marks: str, place: str) -> None:
        """Starts and ends mentions at the last word."""
        here, at = len(self.words) - 1, 0
        while at < len(marks):
            match = _MARK.match(marks, at)
            if match is None:
                raise UserError(f"{place}: {marks!r:.80} in the column of chains; give starts (1, ends 1) and words "
                                "(1), with or without bars between them, or _")
            at = match.end()
            self.marks += 1
            if self.marks > 2 * MOST_MENTIONS:
                raise UserError(f"{place}: a document of more than {MOST_MENTIONS:,} mentions; divide it")
            one, start, end = (None if group is None else int(group) for group in match.groups())
            if one is not None:
                self.chains[one].append((here, here + 1))
            elif start is not None:
                self.open[start].append((here, place))
            elif end is not None:
                if not self.open[end]:
                    raise UserError(f"{place}: a mention of chain {end} ends that was not started; fix the brackets")
                self.chains[end].append((self.open[end].pop()[0], here + 1))

    def end_sentence(self) -> None:
        """Ends a sentence."""
        self.ended = True

    def finish(self, issues: DataIssues) -> CoreferenceDocument:
        """The document. Raises UserError if a mention is open."""
        for chain, starts in self.open.items():
            if starts:
                raise UserError(f"{starts[-1][1]}: a mention of chain {chain} starts and does not end in its document "
                                f"(id {self.id!r}); fix the brackets")
        if not self.words:
            issues.add("documents without words", f"{self.location} (id {self.id!r})")
        marked = None if self.three and len(self.sentences) < 2 else self.sentences
        document = from_words(self.id, self.location, self.group, self.words, marked)
        chains = sorted_chains(self.chains.values(), f"{self.location} (id {self.id!r})", issues)
        return dataclasses.replace(document, chains=chains if self.with_labels else None,
                                   speakers=tuple(self.speakers) if any(self.speakers) else None)


def to_conll(document: CoreferenceDocument, chains: Iterable[Iterable[Span]], issues: DataIssues | None = None) -> str:
    """A document with chains, numbered from 0, in the 12 columns of CoNLL-2012, with tabs between them.

    White space in a word or speaker is written as "_". The format cannot tell mentions of one chain that cross from
    nested ones, unless they share one word only: these are counted in `issues`.
    """
    part = re.fullmatch(re.escape(document.group) + r"_([0-9]{1,9})", document.id)
    name, number = (document.group, int(part[1])) if part else (document.id, 0)
    label = _joined(name).lstrip("#") or "-"  # a line that starts with # is a comment
    marks = _marks(chains, f"{document.location} (id {document.id!r})", issues)
    first = frozenset(document.sentences)
    rows, place = [f"#begin document ({' '.join(name.split())}); part {number:03d}\n"], 0
    for word in range(len(document.words)):
        if word in first:
            rows.append("\n" * bool(word))
            place = 0
        speaker = _joined(document.speakers[word]) if document.speakers else ""
        columns = (label, str(number), str(place), _joined(document.word(word)), *"-----", speaker or "-", "*",
                   "|".join(marks.get(word, "-")))
        rows.append("\t".join(columns) + "\n")
        place += 1
    return "".join(rows) + "\n" * bool(document.words) + "#end document\n"


def _joined(text: str) -> str:
    return "_".join(text.split())


def _marks(chains: Iterable[Iterable[Span]], place: str, issues: DataIssues | None) -> dict[int, list[str]]:
    """The brackets at each word that has some: ends, then starts, then mentions of one word."""
    ends, starts, ones = (collections.defaultdict[int, list[str]](list) for _ in range(3))
    for number, mentions in enumerate(chains):
        open_ends: list[int] = []
        for start, end in sorted(set(mentions), key=lambda span: (span[0], -span[1])):
            if end == start + 1:
                ones[start].append(f"({number})")
                continue
            starts[start].append(f"({number}")
            ends[end - 1].append(f"{number})")
            while open_ends and open_ends[-1] <= start + 1:
                open_ends.pop()
            if issues is not None and open_ends and open_ends[-1] < end:
                issues.add(CROSSING, place)
            open_ends.append(end)
    return {word: ends[word] + starts[word] + ones[word] for word in {*ends, *starts, *ones}}
