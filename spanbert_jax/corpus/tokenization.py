"""Documents to token ids: sentence splitting, tokenization, and statistics."""
import collections
import dataclasses
import re
from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.corpus.documents import Document, split_position
from spanbert_jax.text import (
    WordStarts,
    keeps_spaces,
    line_spans,
    pretoken_numbers,
    sentence_spans,
    special_ids,
    special_tokens_as_text,
    token_offsets,
    word_starts,
)

MAX_TEXT_CHARACTERS = 20_000  # longer sentences are tokenized in parts
_BATCH_TEXTS = 2_000  # limits the encodings in memory at one time
_UNKNOWN_WORDS_KEPT = 20_000
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


@dataclasses.dataclass
class CorpusStats:
    """Statistics of one chunk, or of all chunks so far."""
    # Numbers of documents, sentences, tokens and so on, by name.
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    issues: DataIssues = dataclasses.field(default_factory=DataIssues)  # what was cut or left out, with places
    # Word -> number of times that it became [UNK], and `file:line` where it first did.
    unknown_words: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    first_places: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, other: "CorpusStats") -> None:
        """Adds the statistics of a later chunk."""
        self.counts.update(other.counts)
        self.issues.merge(other.issues)
        self.unknown_words.update(other.unknown_words)
        for word, place in other.first_places.items():
            self.first_places.setdefault(word, place)
        if len(self.unknown_words) > 2 * _UNKNOWN_WORDS_KEPT:  # bounds memory: rare words are dropped
            self.unknown_words = collections.Counter(dict(self.unknown_words.most_common(_UNKNOWN_WORDS_KEPT)))
            self.first_places = {word: self.first_places[word] for word in self.unknown_words}


@dataclasses.dataclass(frozen=True)
class CorpusTokenizer:
    """A tokenizer, with what tokenizing a corpus needs to know of it; made by `corpus_tokenizer`."""
    plain: Tokenizer  # tokenizes special tokens in a text, such as "[SEP]", as text
    unknown: int
    word_starts: WordStarts
    keeps_spaces: bool  # whether a word is tokenized in another way at the start of a text than after a space


def corpus_tokenizer(tokenizer: Tokenizer) -> CorpusTokenizer:
    """Returns a tokenizer as `tokenize` needs it."""
    return CorpusTokenizer(special_tokens_as_text(tokenizer), special_ids(tokenizer).unk, word_starts(tokenizer),
                           keeps_spaces(tokenizer))


@dataclasses.dataclass(frozen=True)
class TokenizedChunk:
    """The tokens of several documents, concatenated."""
    tokens: np.ndarray  # [n] int32
    word_starts: np.ndarray  # [n] uint8: 1 for the first token of a word
    annotations: np.ndarray  # [n] uint8: 1 for the first token of an annotated unit, 2 for its other tokens, else 0
    bounds: list[list[int]]  # per document, offsets in `tokens`: its start, then the end of each sentence
    documents: Sequence[Document]
    spans: list[list[tuple[int, int]]]  # per document, the character spans of its sentences

    def place(self, document: int, sentence: int) -> str:
        """Returns `file:line` of a sentence."""
        return self.documents[document].place(self.spans[document][sentence][0])


def tokenize(tokenizer: CorpusTokenizer, documents: Sequence[Document], stats: CorpusStats) -> TokenizedChunk:
    """Tokenizes the sentences of a chunk of documents without adding special tokens, and updates `stats`.

    If the tokenizer keeps spaces, a sentence that follows white space has one space before it.
    """
    spans = []
    for document in documents:
        found = line_spans(document.text) if document.sentence_lines else sentence_spans(document.text)
        stats.counts["sentences"] += len(found)
        spans.append(_split_long(document, found, stats))
        if controls := len(_CONTROL.findall(document.text)):
            stats.issues.add("control characters removed", document.place(0), controls)
    places = [(document.text, a, b) for document, found in zip(documents, spans) for a, b in found]
    spaced = [tokenizer.keeps_spaces and text[a - 1:a].isspace() for text, a, _ in places]
    texts = [" " * space + text[a:b] for space, (text, a, b) in zip(spaced, places)]
    annotated = any(document.units for document in documents)
    tokens, starts, lengths, offsets = _encode(tokenizer, texts, annotated)

    ends = np.concatenate([[0], np.cumsum(lengths)])
    stops = np.cumsum([0, *map(len, spans)])
    bounds = [ends[a:b + 1].tolist() for a, b in pairwise(stops)]
    stats.counts["documents"] += len(documents)
    stats.counts["tokens"] += len(tokens)
    chunk = TokenizedChunk(tokens, starts, np.zeros(len(tokens), np.uint8), bounds, documents, spans)
    if annotated:
        _annotate(chunk, ends, offsets - np.repeat(spaced, lengths)[:, None])
    _count_unknown(tokenizer, chunk, ends, texts, stops, stats)
    return chunk


def _split_long(document: Document, spans: list[tuple[int, int]], stats: CorpusStats) -> list[tuple[int, int]]:
    """Splits spans longer than MAX_TEXT_CHARACTERS at white space, else anywhere."""
    if all(end - start <= MAX_TEXT_CHARACTERS for start, end in spans):
        return spans
    parts = []
    for start, end in spans:
        if end - start > MAX_TEXT_CHARACTERS:
            stats.issues.add("very long sentences or lines cut", document.place(start))
        while end - start > MAX_TEXT_CHARACTERS:
            middle = split_position(document.text, start, start + MAX_TEXT_CHARACTERS)
            parts.append((start, middle))
            start = middle
        parts.append((start, end))
    return parts


def _encode(tokenizer: CorpusTokenizer, texts: list[str],
            with_offsets: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns of all texts the token ids [n], the word starts [n], the number of tokens of each text, and character
    offsets [n, 2], none if not wanted."""
    with_pretokens, plain = tokenizer.word_starts.kinds is not None, tokenizer.plain
    encode = plain.encode_batch if with_offsets or with_pretokens else plain.encode_batch_fast
    ids, lengths, starts = [np.zeros(0, np.int32)], list[int](), [np.zeros(0, np.uint8)]
    offsets = [np.zeros((0, 2), np.int64)]
    for first in range(0, len(texts), _BATCH_TEXTS):
        batch = texts[first:first + _BATCH_TEXTS]
        encodings = encode(batch, add_special_tokens=False)
        listed = [encoding.ids for encoding in encodings]
        lengths.extend(map(len, listed))
        ids.append(np.fromiter(chain.from_iterable(listed), np.int32))
        pretokens = pretoken_numbers(encodings, first) if with_pretokens else ids[0]
        starts.append(tokenizer.word_starts(ids[-1], pretokens))
        if with_offsets:
            offsets.extend(map(token_offsets, batch, encodings))
    return np.concatenate(ids), np.concatenate(starts), np.array(lengths, np.int64), np.concatenate(offsets)


def _annotate(chunk: TokenizedChunk, ends: np.ndarray, offsets: np.ndarray) -> None:
    text = 0
    for document, spans in zip(chunk.documents, chunk.spans):
        first = ends[text]
        shifts = np.repeat([start for start, _ in spans], np.diff(ends[text:text + len(spans) + 1]))
        in_document = offsets[first:first + len(shifts)] + shifts[:, None]
        text += len(spans)
        for start, end in document.units or ():
            begin = np.searchsorted(in_document[:, 1], start, "right")
            stop = np.searchsorted(in_document[:, 0], end, "left")
            chunk.annotations[first + begin:first + stop] = 2
            chunk.annotations[first + begin:first + min(begin + 1, stop)] = 1


def _count_unknown(tokenizer: CorpusTokenizer, chunk: TokenizedChunk, ends: np.ndarray, texts: list[str],
                   stops: np.ndarray, stats: CorpusStats) -> None:
    """Counts the words that became [UNK]. Only texts with [UNK] are tokenized again, to get the offsets."""
    unknown = tokenizer.unknown
    at = np.flatnonzero(chunk.tokens == unknown)
    stats.counts["unknown tokens"] += len(at)
    for text in np.unique(np.searchsorted(ends, at, "right") - 1).tolist():
        encoding = tokenizer.plain.encode(texts[text], add_special_tokens=False)
        for token, (start, end) in zip(encoding.ids, encoding.offsets):
            if token == unknown:
                word = texts[text][start:end][:40]
                stats.unknown_words[word] += 1
                if word not in stats.first_places:
                    document = int(np.searchsorted(stops, text, "right")) - 1
                    stats.first_places[word] = chunk.place(document, text - int(stops[document]))
