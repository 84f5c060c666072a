"""Documents to piece ids: sentences found, tokenised, and counted."""
import collections
import dataclasses
import re
from collections.abc import Sequence
from itertools import chain

import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.corpus.documents import Document, cut_point
from spanbert_jax.text import line_spans, sentence_spans, special_ids

MAX_TEXT_CHARACTERS = 20_000  # a longer sentence goes to the tokenizer in parts
_BATCH_TEXTS = 2_000  # encodings alive at once
_UNKNOWN_WORDS_KEPT = 20_000
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


@dataclasses.dataclass
class Tally:
    """Counts of one chunk, or of all so far.

    Attributes:
      counts: documents, sentences, tokens, ... by name.
      faults: what had to be cut or left out, with places.
      unknown: word -> how often the vocabulary lacked it.
      seen: word -> where it was lacking first.
    """
    counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    faults: DataIssues = dataclasses.field(default_factory=DataIssues)
    unknown: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    seen: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, other: "Tally") -> None:
        """Adds the counts of a later chunk."""
        self.counts.update(other.counts)
        self.faults.merge(other.faults)
        self.unknown.update(other.unknown)
        for word, place in other.seen.items():
            self.seen.setdefault(word, place)
        if len(self.unknown) > 2 * _UNKNOWN_WORDS_KEPT:  # bounded memory: rare words are forgotten
            self.unknown = collections.Counter(dict(self.unknown.most_common(_UNKNOWN_WORDS_KEPT)))
            self.seen = {word: self.seen[word] for word in self.unknown}


@dataclasses.dataclass(frozen=True)
class TokenizedChunk:
    """The pieces of several documents, one after the other.

    Attributes:
      tokens: [n] int32.
      annotations: [n] uint8: 1 first piece of an annotated unit, 2 its others.
      bounds: for each document, running token counts over the whole chunk: its start, then each sentence's end.
      documents: where it all comes from.
      spans: for each document, the character spans of its sentences.
    """
    tokens: np.ndarray
    annotations: np.ndarray
    bounds: list[list[int]]
    documents: Sequence[Document]
    spans: list[list[tuple[int, int]]]

    def place(self, document: int, sentence: int) -> str:
        """`file:line` of a sentence."""
        return self.documents[document].place(self.spans[document][sentence][0])


def tokenize(tokenizer: Tokenizer, documents: Sequence[Document], tally: Tally) -> TokenizedChunk:
    """Tokenises the sentences of a chunk of documents without special pieces.

    Args:
      tokenizer: with `encode_special_tokens` set, so that "[SEP]" written in a text is words, not the special piece.
      documents: the chunk.
      tally: gets the counts.
    """
    spans = []
    for document in documents:
        found = line_spans(document.text) if document.sentence_lines else sentence_spans(document.text)
        tally.counts["sentences"] += len(found)
        spans.append(_cut_long(document, found, tally))
        if controls := len(_CONTROL.findall(document.text)):
            tally.faults.add("control characters removed", document.place(0), controls)
    texts = [document.text[a:b] for document, found in zip(documents, spans) for a, b in found]
    annotated = any(document.units for document in documents)
    tokens, lengths, offsets = _encode(tokenizer, texts, annotated)

    ends = np.concatenate([[0], np.cumsum(lengths)])
    stops = np.cumsum([0, *map(len, spans)])
    bounds = [ends[a:b + 1].tolist() for a, b in zip(stops[:-1], stops[1:])]
    tally.counts["documents"] += len(documents)
    tally.counts["tokens"] += len(tokens)
    chunk = TokenizedChunk(tokens, np.zeros(len(tokens), np.uint8), bounds, documents, spans)
    if annotated:
        _annotate(chunk, ends, offsets)
    _count_unknown(tokenizer, chunk, ends, texts, stops, tally)
    return chunk


def _cut_long(document: Document, spans: list[tuple[int, int]], tally: Tally) -> list[tuple[int, int]]:
    """Cuts spans beyond the length given to the tokenizer at white space, else anywhere."""
    if all(end - start <= MAX_TEXT_CHARACTERS for start, end in spans):
        return spans
    cut = []
    for start, end in spans:
        if end - start > MAX_TEXT_CHARACTERS:
            tally.faults.add("very long sentences or lines cut", document.place(start))
        while end - start > MAX_TEXT_CHARACTERS:
            middle = cut_point(document.text, start, start + MAX_TEXT_CHARACTERS)
            cut.append((start, middle))
            start = middle
        cut.append((start, end))
    return cut


def _encode(tokenizer: Tokenizer, texts: list[str], with_offsets: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns ids [n], tokens of each text, and character offsets [n, 2] within its text (empty unless asked for)."""
    encode = tokenizer.encode_batch if with_offsets else tokenizer.encode_batch_fast
    ids, lengths, offsets = [], [], []
    for start in range(0, len(texts), _BATCH_TEXTS):
        encodings = encode(texts[start:start + _BATCH_TEXTS], add_special_tokens=False)
        listed = [encoding.ids for encoding in encodings]
        lengths.extend(map(len, listed))
        ids.append(np.fromiter(chain.from_iterable(listed), np.int32))
        if with_offsets:
            offsets.extend(encoding.offsets for encoding in encodings)
    flat = np.array(list(chain.from_iterable(offsets)), np.int64).reshape(-1, 2)
    return np.concatenate(ids or [np.zeros(0, np.int32)]), np.array(lengths, np.int64), flat


def _annotate(chunk: TokenizedChunk, ends: np.ndarray, offsets: np.ndarray) -> None:
    """Marks the pieces that overlap an annotated unit."""
    text = 0
    for document, spans in zip(chunk.documents, chunk.spans):
        first = ends[text]
        shifts = np.repeat([start for start, _ in spans], np.diff(ends[text:text + len(spans) + 1]))
        own = offsets[first:first + len(shifts)] + shifts[:, None]
        text += len(spans)
        for start, end in document.units or ():
            begin, stop = np.searchsorted(own[:, 1], start, "right"), np.searchsorted(own[:, 0], end, "left")
            chunk.annotations[first + begin:first + stop] = 2
            chunk.annotations[first + begin:first + min(begin + 1, stop)] = 1


def _count_unknown(tokenizer: Tokenizer, chunk: TokenizedChunk, ends: np.ndarray, texts: list[str],
                   stops: np.ndarray, tally: Tally) -> None:
    """Counts the words the vocabulary lacks, by tokenising the texts that hold one again with offsets."""
    unknown = special_ids(tokenizer).unk
    at = np.flatnonzero(chunk.tokens == unknown)
    tally.counts["unknown tokens"] += len(at)
    for text in np.unique(np.searchsorted(ends, at, "right") - 1).tolist():
        encoding = tokenizer.encode(texts[text], add_special_tokens=False)
        for piece, (start, end) in zip(encoding.ids, encoding.offsets):
            if piece == unknown:
                word = texts[text][start:end][:40]
                tally.unknown[word] += 1
                if word not in tally.seen:
                    document = int(np.searchsorted(stops, text, "right")) - 1
                    tally.seen[word] = chunk.place(document, text - int(stops[document]))
