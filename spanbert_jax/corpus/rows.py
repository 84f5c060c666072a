"""Chunks of documents to rows: tokenized, cut into blocks, packed. Worker processes run `RowBuilder`."""
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.corpus.blocks import best_fit, sentence_blocks, window_blocks
from spanbert_jax.corpus.documents import Document
from spanbert_jax.corpus.pairs import pair_blocks
from spanbert_jax.corpus.settings import CorpusSettings
from spanbert_jax.corpus.tokenization import CorpusStats, TokenizedChunk, corpus_tokenizer, tokenize
from spanbert_jax.text import pair_layout, special_ids

UINT8_FEATURES = ("word_starts", "segments", "token_types", "annotations")
_CHUNK_CHARACTERS = 400_000  # fixed, so that rows do not depend on the number of workers
_PAIR_DOCUMENTS = 16  # minimum number of documents to draw random ones from
_MAX_SEGMENTS = 255  # segments are uint8, and 0 is padding

Rows = dict[str, np.ndarray]


def token_dtype(vocab_size: int) -> np.dtype:
    """Returns the dtype of tokens on disk: uint16 if the vocabulary fits, else int32."""
    return np.dtype(np.uint16 if vocab_size <= 65_536 else np.int32)


@dataclasses.dataclass(frozen=True)
class RowSettings:
    """Settings that determine the rows of a chunk: the tokenizer as JSON, corpus settings, seed of random choices."""
    tokenizer: str
    corpus: CorpusSettings
    seed: int


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Documents of one split. `key` is (split, chunk number); with the seed it determines the random choices."""
    key: tuple[int, int]
    documents: Sequence[Document]


def make_chunks(documents: Iterable[Document], split: int, blocks: str) -> Iterator[Chunk]:
    """Groups documents into chunks of at least 400,000 characters, for "pairs" also of at least 16 documents.

    For "pairs", a last chunk of fewer documents joins the chunk before it, so that random documents exist.
    """
    min_documents = _PAIR_DOCUMENTS if blocks == "pairs" else 1
    gathered, waiting = list[Document](), list[Document]()
    number = size = 0
    for document in documents:
        gathered.append(document)
        size += len(document.text)
        if size >= _CHUNK_CHARACTERS and len(gathered) >= min_documents:
            if waiting:
                yield Chunk((split, number), waiting)
                number += 1
            waiting, gathered, size = gathered, [], 0
    if len(gathered) < min_documents:
        waiting, gathered = waiting + gathered, []
    for last in filter(None, (waiting, gathered)):
        yield Chunk((split, number), last)
        number += 1


@dataclasses.dataclass(frozen=True)
class TokenPlacements:
    """Where ranges of tokens go in the rows. Every array has one entry per range."""
    start: np.ndarray  # of the range in the tokens of the chunk
    length: np.ndarray  # number of tokens
    row: np.ndarray  # row of the range
    column: np.ndarray  # position of its first token in the row
    segment: np.ndarray  # from 1
    token_type: np.ndarray  # 0, or 1 for a second text, which has no [CLS] before it


class RowBuilder:
    """Builds the rows of chunks. It holds the tokenizer, so a process makes one and uses it for every chunk."""

    def __init__(self, settings: RowSettings):
        self._settings = settings
        tokenizer = Tokenizer.from_str(settings.tokenizer)
        self._tokenizer, self._special = corpus_tokenizer(tokenizer), special_ids(tokenizer)
        self._pair = pair_layout(tokenizer)

    def __call__(self, chunk: Chunk) -> tuple[Rows, CorpusStats]:
        """Returns the rows ([n, S] arrays, next_sentence [n]) and the statistics of a chunk."""
        stats = CorpusStats()
        text = tokenize(self._tokenizer, chunk.documents, stats)
        if self._settings.corpus.blocks == "pairs":
            placements, labels = self._place_pairs(chunk, text, stats)
        else:
            placements = self._pack(*self._blocks(text, stats))
            labels = np.full(int(placements.row[-1]) + 1 if len(placements.row) else 0, -1, np.int32)
        rows = self._fill(text, placements, len(labels))
        rows["next_sentence"] = labels
        stats.counts["rows"] += len(labels)
        stats.counts["filled positions"] += int(np.count_nonzero(rows["segments"]))
        return rows, stats

    def _blocks(self, text: TokenizedChunk, stats: CorpusStats) -> tuple[np.ndarray, np.ndarray]:
        """Cuts the documents into blocks. Returns start and length [blocks] of each block in the tokens."""
        budget = self._settings.corpus.length - 2
        starts, ends = list[int](), list[int]()
        for document, bounds in enumerate(text.bounds):
            first = bounds[0]
            if self._settings.corpus.blocks == "contiguous":
                cuts = window_blocks(bounds[-1] - first, budget)
            else:
                cuts, cut_sentences = sentence_blocks([bound - first for bound in bounds[1:]], budget)
                for sentence in cut_sentences:
                    stats.issues.add("sentences longer than a row cut", text.place(document, sentence))
            starts.extend(first + cut for cut in cuts[:-1])
            ends.extend(first + cut for cut in cuts[1:])
        start = np.array(starts, np.int64)
        return start, np.array(ends, np.int64) - start

    def _pack(self, start: np.ndarray, length: np.ndarray) -> TokenPlacements:
        """Places one block in a row, or several, each as a segment of its own."""
        bins = [[block] for block in range(len(start))]
        if self._settings.corpus.pack:
            bins = best_fit(length + 2, self._settings.corpus.length, _MAX_SEGMENTS)
        order = np.array([item for items in bins for item in items], np.int64)
        start, length = start[order], length[order]
        row = np.repeat(np.arange(len(bins)), np.array([len(items) for items in bins], np.int64))
        first_in_row = np.searchsorted(row, row)
        before = np.concatenate([[0], np.cumsum(length + 2)])
        column = before[:-1] - before[first_in_row] + 1
        segment = np.arange(len(row)) - first_in_row + 1
        return TokenPlacements(start, length, row, column, segment, np.zeros_like(row))

    def _place_pairs(self, chunk: Chunk, text: TokenizedChunk,
                     stats: CorpusStats) -> tuple[TokenPlacements, np.ndarray]:
        """Places two texts per row. Returns the placements and the next-sentence labels [rows]."""
        budget = self._settings.corpus.length - self._pair.size
        documents = [self._split_sentences(text, document, budget, stats) for document in range(len(text.bounds))]
        rng = np.random.default_rng([self._settings.seed, *chunk.key])
        pairs, dropped = pair_blocks(documents, budget, self._settings.corpus.short_sequence_probability, rng)
        stats.counts["tokens dropped to fit pairs"] += dropped
        spans = np.array([(pair.first, pair.second) for pair in pairs], np.int64).reshape(-1, 2)
        length, count = spans[:, 1] - spans[:, 0], len(pairs)
        column = np.ones(2 * count, np.int64)
        column[1::2] = length[::2] + 1 + len(self._pair.between)
        placements = TokenPlacements(spans[:, 0], length, np.repeat(np.arange(count), 2), column,
                                     np.ones(2 * count, np.int64), np.tile([0, 1], count))
        return placements, np.array([pair.label for pair in pairs], np.int32)

    def _split_sentences(self, text: TokenizedChunk, document: int, budget: int, stats: CorpusStats) -> list[int]:
        """Returns the sentence bounds of a document, with sentences longer than `budget` tokens split."""
        bounds = text.bounds[document]
        split = [bounds[0]]
        for sentence, bound in enumerate(bounds[1:]):
            if bound - split[-1] > budget:
                stats.issues.add("sentences longer than a row cut", text.place(document, sentence))
                split.extend(range(split[-1] + budget, bound, budget))
            if bound > split[-1]:
                split.append(bound)
        return split

    def _fill(self, text: TokenizedChunk, placements: TokenPlacements, count: int) -> Rows:
        """Writes [CLS], the token ranges and [SEP] into `count` rows of padding."""
        length = self._settings.corpus.length
        tokens = np.full(count * length, self._special.pad, np.int32)
        flags = {name: np.zeros(count * length, np.uint8) for name in UINT8_FEATURES}
        to = placements.row * length + placements.column  # flat position of the first token of each range
        source, target = _ranges(placements.start, placements.length), _ranges(to, placements.length)
        tokens[target] = text.tokens[source]
        flags["word_starts"][target] = text.word_starts[source]
        flags["annotations"][target] = text.annotations[source]

        # The first token of a range starts a word, and a unit, even if the cut is inside them.
        firsts = to[placements.length > 0]
        flags["word_starts"][firsts] = 1
        flags["annotations"][firsts] = np.minimum(flags["annotations"][firsts], 1)
        has_cls = placements.token_type == 0
        before = np.where(has_cls, 1, len(self._pair.between) - 1)  # further [SEP]s before a second text
        tokens[_ranges(to - before, before)] = self._special.sep
        tokens[to[has_cls] - 1] = self._special.cls
        tokens[to + placements.length] = self._special.sep
        sizes = placements.length + 1 + before
        with_special = _ranges(to - before, sizes)
        flags["segments"][with_special] = np.repeat(placements.segment, sizes)
        flags["token_types"][with_special] = np.repeat(placements.token_type, sizes)
        rows: Rows = {"tokens": tokens, **flags}
        return {name: array.reshape(count, length) for name, array in rows.items()}


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenates arange(start, start + length) of every pair."""
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
