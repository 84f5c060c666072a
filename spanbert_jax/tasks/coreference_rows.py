"""Training rows of coreference: whole documents, with their words and gold mentions."""
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from spanbert_jax.corpus.blocks import best_fit
from spanbert_jax.tasks.features import Features
from spanbert_jax.tasks.packing import PackedRows, rounded_length
from spanbert_jax.tasks.packing_pairs import labels_of

_MULTIPLE = 32  # of which the numbers of words and mentions of a row are
_MOST_SEGMENTS = 255  # of a row, whose numbers are uint8
WORD_CLASS = "word_class"  # the token column of the classes of words, for the categories of pairs
_MENTION = ("start", "end", "chain")  # what labels hold for each gold mention


class Words(NamedTuple):
    """The words of all features, one after the other, N in total."""
    feature: np.ndarray  # [N] number of the feature
    number: np.ndarray  # [N] number in the document
    first: np.ndarray  # [N] the word's first token, counted from the start of the first feature
    last: np.ndarray  # [N] its last token

    @classmethod
    def of(cls, features: Features) -> "Words":
        """The words by the token column "word": the number of each token's word in its document, -1 for others."""
        numbers = features.token_columns["word"]
        feature = np.repeat(np.arange(len(features)), features.lengths)
        is_word = numbers >= 0
        starts = is_word & ((np.diff(numbers, prepend=-1) != 0) | (np.diff(feature, prepend=-1) != 0))
        ends = is_word & ((np.diff(numbers, append=-1) != 0) | (np.diff(feature, append=-1) != 0))
        first = np.flatnonzero(starts)
        return cls(feature[first], numbers[first].astype(np.int64), first, np.flatnonzero(ends))

    def bounds(self, count: int) -> np.ndarray:
        """[count + 1] the first word of each of `count` features, and N."""
        return np.searchsorted(self.feature, np.arange(count + 1))


class DocumentRows(PackedRows):
    """Rows of documents, or of parts of long ones, each several features in a row.

    Each feature begins at a multiple of the segment length, so that an encoder can take it as a row of its own. In
    addition to those of `PackedRows`, a row has what `CoreferenceModel` takes: "word_first", "word_last",
    "documents" and "partial" [W], "mention_start", "mention_end" and "chains" [G], and "word_class" [W] if the features
    have such a token column.
    """

    def __init__(self, features: Features, parts: Sequence[range], bins: Sequence[Sequence[int]],
                 segment_length: int, pad: int):
        """Computes the position of each feature; `parts` has the features of each part, `bins` the parts of rows."""
        features_of_rows = [list(itertools.chain.from_iterable(parts[part] for part in row)) for row in bins]
        segments = max(map(len, features_of_rows), default=1)
        super().__init__(features, features_of_rows, segments * segment_length, pad)
        self.column = self.slot * segment_length
        self._words = words = Words.of(features)
        classes = features.token_columns.get(WORD_CLASS)
        self._classes = None if classes is None else classes[words.first]
        self._word_bounds = words.bounds(len(features))
        self._parts = [[parts[part] for part in parts_of_row] for parts_of_row in bins]
        labels = labels_of(features)
        mentions = labels.tokens.reshape(-1, len(_MENTION))
        self._mentions = [self._inside(part, mentions[labels.starts[part.start] // len(_MENTION):
                                                      labels.starts[part.stop] // len(_MENTION)]) for part in parts]
        self._mentions_of_row = [[self._mentions[part] for part in parts_of_row] for parts_of_row in bins]

        def most(counts: list[int]) -> int:
            return -(-max(counts, default=1) // _MULTIPLE) * _MULTIPLE or _MULTIPLE

        self.words = most([sum(self._size(part) for part in row) for row in self._parts])  # W
        self.mentions = most([sum(map(len, row)) for row in self._mentions_of_row])  # G

    def _size(self, part: range) -> int:
        """The number of words of a part."""
        return int(self._word_bounds[part.stop] - self._word_bounds[part.start])

    def _inside(self, part: range, mentions: np.ndarray) -> np.ndarray:
        """Mentions that end in a part, with words counted from its first one."""
        if not self._size(part):
            return mentions[:0]
        numbers = self._words.number[self._word_bounds[part.start]:self._word_bounds[part.stop]]
        inside = mentions[mentions[:, 1] <= numbers[-1]]
        return inside - [numbers[0], numbers[0], 0]

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Rows with given numbers [R]; -1 gives a row of padding."""
        batch, count = super().rows(indices), len(indices)
        for name, width in (("word_first", self.words), ("word_last", self.words), ("documents", self.words),
                            ("partial", self.words), ("mention_start", self.mentions), ("mention_end", self.mentions),
                            ("chains", self.mentions),
                            *([(WORD_CLASS, self.words)] if self._classes is not None else [])):
            batch[name] = np.zeros((count, width), np.int32)
        for index, row in enumerate(np.asarray(indices).tolist()):
            word = mention = 0
            for number, (part, mentions) in enumerate(zip(self._parts[row], self._mentions_of_row[row])
                                                      if row >= 0 else (), 1):
                source = slice(self._word_bounds[part.start], self._word_bounds[part.stop])
                target = slice(word, word + self._size(part))
                feature = self._words.feature[source]
                shift = self.column[feature] - self.features.starts[feature]
                batch["word_first"][index, target] = self._words.first[source] + shift
                batch["word_last"][index, target] = self._words.last[source] + shift
                batch["documents"][index, target] = number
                batch["partial"][index, target] = self.features.columns["partial"][feature]
                if self._classes is not None:
                    batch[WORD_CLASS][index, target] = self._classes[source]
                into = slice(mention, mention + len(mentions))
                batch["mention_start"][index, into], batch["mention_end"][index, into] = (mentions[:, :2] + word).T
                batch["chains"][index, into] = mentions[:, 2]
                word, mention = target.stop, into.stop
        return batch


def pack_documents(features: Features, most: int, pad: int, seed: int) -> DocumentRows:
    """Packs documents into few rows, each whole; those of more than `most` tokens are cut into equal parts."""
    length = rounded_length(int(features.lengths.max(initial=1)))
    parts = document_parts(features, max(1, most // length))
    counts = np.array([len(part) for part in parts], np.int64)
    order = np.random.default_rng(seed).permutation(len(parts))
    bins = best_fit(counts[order], int(counts.max()), _MOST_SEGMENTS)
    return DocumentRows(features, parts, [order[items].tolist() for items in bins], length, pad)


def document_parts(features: Features, most: int) -> list[range]:
    """The features of each document, or of each of its parts: at most `most`, about as many in each part."""
    parts = []
    for document in features.by_example(int(features.example.max(initial=-1)) + 1):
        bounds = np.linspace(0, len(document), -(-len(document) // most) + 1).round().astype(int) + document.start
        parts += [range(first, end) for first, end in itertools.pairwise(bounds.tolist())]
    return parts
