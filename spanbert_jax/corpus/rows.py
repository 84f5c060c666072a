"""A chunk of documents to rows: tokenised, cut into blocks, packed. A pure function that worker processes run."""
import dataclasses
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.corpus.blocks import best_fit, sentence_blocks, window_blocks
from spanbert_jax.corpus.documents import Document
from spanbert_jax.corpus.pairs import pair_blocks
from spanbert_jax.corpus.tokenization import Tally, TokenizedChunk, tokenize
from spanbert_jax.text import special_ids, word_start_table

BLOCK_MODES = ("sentences", "contiguous", "pairs")
UINT8_FEATURES = ("word_starts", "segments", "token_types", "annotations")
_MOST_SEGMENTS = 255  # segments are uint8 and 0 is padding
_SMALL_VOCABULARY = 65_536

Rows = dict[str, np.ndarray]


def token_dtype(vocab_size: int) -> np.dtype:
    """How tokens are stored: uint16 where the vocabulary fits in it, else int32."""
    return np.dtype(np.uint16 if vocab_size <= _SMALL_VOCABULARY else np.int32)


@dataclasses.dataclass(frozen=True)
class RowSettings:
    """What decides how a chunk of documents becomes rows.

    Attributes:
      tokenizer: the tokenizer as JSON.
      length: S.
      blocks: one of BLOCK_MODES.
      pack: several blocks in a row.
      short_sequence_probability: for `pairs`, chance of a shorter target length for a document.
      seed: of the random choices in `pairs`.
    """
    tokenizer: str
    length: int
    blocks: str
    pack: bool
    short_sequence_probability: float
    seed: int


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some documents of one split, and its number, which with the seed settles its random choices."""
    key: tuple[int, int]
    documents: Sequence[Document]


@dataclasses.dataclass(frozen=True)
class Pieces:
    """Where stretches of tokens go; one entry for each stretch.

    Attributes:
      start, length: the stretch in the chunk's tokens.
      row, column: where its first token goes.
      segment: the segment it belongs to, from 1.
      token_type: 0, or 1 for a second text, which has no [CLS] before it.
    """
    start: np.ndarray
    length: np.ndarray
    row: np.ndarray
    column: np.ndarray
    segment: np.ndarray
    token_type: np.ndarray


class RowMaker:
    """Turns chunks into rows. Holds the tokenizer, so a process makes one and uses it for every chunk."""

    def __init__(self, settings: RowSettings):
        self._settings = settings
        self._tokenizer = Tokenizer.from_str(settings.tokenizer)
        self._tokenizer.encode_special_tokens = True
        self._special = special_ids(self._tokenizer)
        self._word_starts = word_start_table(self._tokenizer)

    def __call__(self, chunk: Chunk) -> tuple[Rows, Tally]:
        """Returns the rows ([n, S] arrays, next_sentence [n]) and the tally of a chunk."""
        tally = Tally()
        text = tokenize(self._tokenizer, chunk.documents, tally)
        if self._settings.blocks == "pairs":
            pieces, labels = self._pair_pieces(chunk, text, tally)
        else:
            pieces = self._single_pieces(text, tally)
            labels = np.full(int(pieces.row[-1]) + 1 if len(pieces.row) else 0, -1, np.int32)
        rows = self._fill(text, pieces, len(labels))
        rows["next_sentence"] = labels
        tally.counts["rows"] += len(labels)
        tally.counts["filled positions"] += int(np.count_nonzero(rows["segments"]))
        return rows, tally

    def _single_pieces(self, text: TokenizedChunk, tally: Tally) -> Pieces:
        budget = self._settings.length - 2
        starts, ends = [], []
        for document, bounds in enumerate(text.bounds):
            first = bounds[0]
            if self._settings.blocks == "contiguous":
                cuts = window_blocks(bounds[-1] - first, budget)
            else:
                cuts, cut_sentences = sentence_blocks([bound - first for bound in bounds[1:]], budget)
                for sentence in cut_sentences:
                    tally.faults.add("sentences longer than a row cut", text.place(document, sentence))
            starts.extend(first + cut for cut in cuts[:-1])
            ends.extend(first + cut for cut in cuts[1:])
        start = np.array(starts, np.int64)
        length = np.array(ends, np.int64) - start
        if not self._settings.pack:
            row, ones = np.arange(len(start)), np.ones(len(start), np.int64)
            return Pieces(start, length, row, ones, ones, np.zeros_like(ones))
        bins = best_fit(length + 2, self._settings.length, _MOST_SEGMENTS)
        order = np.array([item for items in bins for item in items], np.int64)
        start, length = start[order], length[order]
        row = np.repeat(np.arange(len(bins)), [len(items) for items in bins])
        first_in_row = np.searchsorted(row, row)
        before = np.concatenate([[0], np.cumsum(length + 2)])
        column = before[:-1] - before[first_in_row] + 1
        return Pieces(start, length, row, column, np.arange(len(row)) - first_in_row + 1, np.zeros_like(row))

    def _pair_pieces(self, chunk: Chunk, text: TokenizedChunk, tally: Tally) -> tuple[Pieces, np.ndarray]:
        budget = self._settings.length - 3
        documents = []
        for document, bounds in enumerate(text.bounds):
            split = [bounds[0]]
            for sentence, bound in enumerate(bounds[1:]):
                if bound - split[-1] > budget:
                    tally.faults.add("sentences longer than a row cut", text.place(document, sentence))
                    split.extend(range(split[-1] + budget, bound, budget))
                if bound > split[-1]:
                    split.append(bound)
            documents.append(split)
        rng = np.random.default_rng([self._settings.seed, *chunk.key])
        pairs, dropped = pair_blocks(documents, budget, self._settings.short_sequence_probability, rng)
        tally.counts["tokens dropped to fit pairs"] += dropped
        spans = np.array([(pair.first, pair.second) for pair in pairs], np.int64).reshape(-1, 2)
        length = spans[:, 1] - spans[:, 0]
        count = len(pairs)
        column = np.ones(2 * count, np.int64)
        column[1::2] = length[::2] + 2
        pieces = Pieces(spans[:, 0], length, np.repeat(np.arange(count), 2), column,
                        np.ones(2 * count, np.int64), np.tile([0, 1], count))
        return pieces, np.array([pair.label for pair in pairs], np.int32)

    def _fill(self, text: TokenizedChunk, pieces: Pieces, count: int) -> Rows:
        """Writes [CLS], the stretches and [SEP] into rows of padding."""
        length = self._settings.length
        tokens = np.full(count * length, self._special.pad, np.int32)
        flags = {name: np.zeros(count * length, np.uint8) for name in UINT8_FEATURES}
        to = pieces.row * length + pieces.column  # flat place of each stretch's first token
        source, target = _ranges(pieces.start, pieces.length), _ranges(to, pieces.length)
        tokens[target] = text.tokens[source]
        flags["word_starts"][target] = self._word_starts[tokens[target]]
        flags["annotations"][target] = text.annotations[source]

        some = to[pieces.length > 0]  # a stretch cut inside a word or unit begins it anew
        flags["word_starts"][some] = 1
        flags["annotations"][some] = np.minimum(flags["annotations"][some], 1)
        opening = pieces.token_type == 0
        tokens[to[opening] - 1] = self._special.cls
        tokens[to + pieces.length] = self._special.sep
        whole = _ranges(to - opening, pieces.length + 1 + opening)
        sizes = pieces.length + 1 + opening
        flags["segments"][whole] = np.repeat(pieces.segment, sizes)
        flags["token_types"][whole] = np.repeat(pieces.token_type, sizes)
        rows = {"tokens": tokens, **flags}
        return {name: array.reshape(count, length) for name, array in rows.items()}


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenates arange(start, start + length) of every pair."""
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
