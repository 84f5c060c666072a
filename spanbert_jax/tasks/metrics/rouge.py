"""ROUGE of summaries in any script with the package `rouge-score`, and the sentences that maximize it."""
import functools
import itertools
import types
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Regex, pre_tokenizers

# Our names of metrics -> the package's.
_KINDS = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}

# Scripts without spaces between words. The kana prolonged sound mark belongs to no script.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\x{30fc}]"
# One letter or digit of these with its marks, or a run of letters, digits and marks of other scripts.
_WORD = rf"(?=[\p{{L}}\p{{N}}]){_UNSPACED}\p{{M}}*|(?:(?!{_UNSPACED})[\p{{L}}\p{{N}}\p{{M}}])+"
_SPLITTER = pre_tokenizers.Split(Regex(_WORD), "removed", invert=True)


def rouge_words(text: str) -> list[str]:
    """Words of a text in lower case; English words are stemmed.

    For ASCII text these are the words of rouge-score with its stemmer. Its tokenizer drops all characters but a-z and
    0-9, so that texts in other scripts score 0 and words with accents are split. Here a word is a run of letters,
    digits and combining marks of any script, or a single character in scripts without spaces, after NFKC normalization.
    Only ASCII words are stemmed.
    """
    text = unicodedata.normalize("NFKC", text).lower()
    return [stem for word, _ in _SPLITTER.pre_tokenize_str(text) if (stem := _stem(word))]


@functools.lru_cache(1 << 16)
def _stem(word: str) -> str:
    return "".join(_tokenizer().tokenize(word)) if word.isascii() else word


@functools.cache
def _tokenizer() -> Any:
    from rouge_score.tokenizers import DefaultTokenizer  # takes a second to import

    return DefaultTokenizer(use_stemmer=True)


@functools.cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(_KINDS.values()), tokenizer=types.SimpleNamespace(tokenize=rouge_words))


def rouge_metrics(references: Sequence[Sequence[str]], summaries: Sequence[str], prefix: str = "") -> dict[str, float]:
    """Mean F1 over documents in percent: "rouge_1" of words, "rouge_2" of word pairs, "rouge_l" of the longest common
    subsequence. The best of several references counts; `prefix` is put before the names.
    """
    scores = [_scorer().score_multi(list(texts), summary) for texts, summary in zip(references, summaries, strict=True)]
    return {f"{prefix}{name}": 100.0 * sum(score[kind].fmeasure for score in scores) / len(scores)
            for name, kind in _KINDS.items()}


def greedy_oracle(sentences: Sequence[str], references: Sequence[str], most: int) -> list[int]:
    """Ascending numbers of sentences that form a good summary: the labels of extractive summarization.

    Greedily adds the sentence that raises ROUGE-1 + ROUGE-2 of the chosen sentences, in the document's order, most (the
    first of several), until none raises it. With several references, each metric is that of the best one.

    Args:
      references: at least one.
      most: maximum number of sentences.
    """
    words, reference_words = ([rouge_words(text) for text in texts] for texts in (sentences, references))
    overlaps = [[_Overlap(reference, words, n) for reference in reference_words] for n in (1, 2)]
    lengths = np.array([len(sentence) for sentence in words], np.int64)
    chosen: list[int] = []
    reached = 0.0
    while len(chosen) < min(most, len(words)):
        boundaries = [_boundary_pairs([words[other] for other in sorted({*chosen, number})])
                      for number in range(len(words))]
        totals = lengths + lengths[chosen].sum()
        scores = np.sum([np.max([overlap.f1(chosen, totals, boundaries) for overlap in overlaps_n], axis=0)
                         for overlaps_n in overlaps], axis=0)
        scores[chosen] = 0.0
        best = int(scores.argmax())
        if scores[best] <= reached:
            break
        chosen.append(best)
        reached = scores[best]
    return sorted(chosen)


def principal_sentence(sentences: Sequence[Sequence[str]]) -> int:
    """The number of the sentence with the highest ROUGE-1 against the rest of the document, the first of several.

    Zhang et al. (2020, PEGASUS, section 3.1, "Ind-Orig") choose the gap sentences of pretraining in this way. At least
    one sentence is given, by its words.
    """
    counts = [Counter(words) for words in sentences]
    everything = Counter(itertools.chain.from_iterable(sentences))
    # F1 is 2 * common words / all words of the document, and the denominator is the same for all sentences.
    return max(range(len(counts)), key=lambda number: (counts[number] & (everything - counts[number])).total())


def _boundary_pairs(sentences: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """The word pairs across sentence boundaries."""
    with_words = [sentence for sentence in sentences if sentence]
    return [(before[-1], after[0]) for before, after in itertools.pairwise(with_words)]


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[first:] for first in range(n))))


class _Overlap:
    """Counts of the G distinct n-grams of a reference in each of N sentences."""

    def __init__(self, reference: Sequence[str], sentences: Sequence[Sequence[str]], n: int):
        grams = _ngrams(reference, n)
        self._n, self._places = n, {gram: place for place, gram in enumerate(grams)}
        self._wanted = np.array(list(grams.values()), np.int64)  # [G]
        self._counts = np.zeros((len(sentences), len(grams)), np.int64)
        for number, sentence in enumerate(sentences):
            for gram, count in _ngrams(sentence, n).items():
                if gram in self._places:
                    self._counts[number, self._places[gram]] = count

    def f1(self, chosen: Sequence[int], totals: np.ndarray,
           boundaries: Sequence[Sequence[tuple[str, str]]]) -> np.ndarray:
        """[N] F1, 0 to 1, of the chosen sentences together with each further sentence.

        Args:
          chosen: numbers of the chosen sentences.
          totals: [N] number of words in all of them.
          boundaries: the word pairs across their boundaries.
        """
        counts = self._counts + self._counts[chosen].sum(axis=0)
        for number, pairs in enumerate(boundaries):
            for pair in pairs:
                if pair in self._places:  # never if n is 1
                    counts[number, self._places[pair]] += 1
        common = np.minimum(counts, self._wanted).sum(axis=1)
        precision = common / np.maximum(totals - self._n + 1, 1)
        recall = common / max(self._wanted.sum(), 1)
        scores = np.zeros(len(counts))
        return np.divide(2 * precision * recall, precision + recall, out=scores, where=common > 0)
