"""ROUGE of summaries in any script, by the package `rouge-score`, and the sentences by which it is highest."""
from __future__ import annotations

import functools
import itertools
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Regex, pre_tokenizers

# Names of figures -> the package's.
_KINDS = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}

# Scripts that are written without white space between words. The mark that lengthens kana belongs to no script.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\x{30fc}]"
# A letter or digit of theirs with its marks, or a run of letters, digits and marks of others.
_WORD = rf"(?=[\p{{L}}\p{{N}}]){_UNSPACED}\p{{M}}*|(?:(?!{_UNSPACED})[\p{{L}}\p{{N}}\p{{M}}])+"
_SPLITTER = pre_tokenizers.Split(Regex(_WORD), "removed", invert=True)


def rouge_words(text: str) -> list[str]:
    """Words of a text in small letters, English ones as their stems.

    Of text in ASCII they are those of rouge-score with its stemmer. Its own tokenizer drops whatever is not a-z or 0-9,
    so that texts in other scripts score 0 and words with accents fall apart. Here a word is a run of letters, digits
    and combining marks of any script; in scripts that are written without spaces each character is one; characters
    that Unicode holds to be the same are the same (NFKC). Only words in ASCII have stems.
    """
    text = unicodedata.normalize("NFKC", text).lower()
    return [stem for word, _ in _SPLITTER.pre_tokenize_str(text) if (stem := _stem(word))]


@functools.lru_cache(1 << 16)
def _stem(word: str) -> str:
    return "".join(_tokenizer().tokenize(word)) if word.isascii() else word


@functools.cache
def _tokenizer() -> Any:
    from rouge_score.tokenizers import DefaultTokenizer  # its stemmer takes a second to import

    return DefaultTokenizer(use_stemmer=True)


class _Words:
    """`rouge_words`, as the package takes a tokenizer."""
    tokenize = staticmethod(rouge_words)


@functools.cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(_KINDS.values()), tokenizer=_Words())


def rouge_metrics(references: Sequence[Sequence[str]], summaries: Sequence[str], prefix: str = "") -> dict[str, float]:
    """Means over documents of F1 in percent: "rouge_1", "rouge_2" of single words and pairs, "rouge_l" of the longest
    common subsequence.

    Args:
      references: of each document one at least; of several that counts which gives the best figure.
      summaries: one a document.
      prefix: of the names of the figures.
    """
    scores = [_scorer().score_multi(list(of_document), summary)
              for of_document, summary in zip(references, summaries, strict=True)]
    return {f"{prefix}{name}": 100.0 * sum(score[kind].fmeasure for score in scores) / len(scores)
            for name, kind in _KINDS.items()}


def greedy_oracle(sentences: Sequence[str], references: Sequence[str], most: int) -> list[int]:
    """The numbers, ascending, of sentences that make a good summary: what an extractive summariser is trained on.

    One after the other is added that raises ROUGE-1 plus ROUGE-2, of the sentences so far in the document's order,
    most, and of several the first, until none raises it. With several references each figure is that of the best.

    Args:
      references: one at least.
      most: sentences to choose at most.
    """
    words, wanted = ([rouge_words(text) for text in texts] for texts in (sentences, references))
    overlaps = [[_Overlap(reference, words, n) for reference in wanted] for n in (1, 2)]
    lengths = np.array([len(sentence) for sentence in words], np.int64)
    chosen: list[int] = []
    reached = 0.0
    while len(chosen) < min(most, len(words)):
        joints = [_joints([words[other] for other in sorted({*chosen, number})]) for number in range(len(words))]
        totals = lengths + lengths[chosen].sum()
        figures = sum(np.max([overlap.f1(chosen, totals, joints) for overlap in of_kind], axis=0)
                      for of_kind in overlaps)
        figures[chosen] = 0.0
        best = int(figures.argmax())
        if figures[best] <= reached:
            break
        chosen.append(best)
        reached = figures[best]
    return sorted(chosen)


def principal_sentence(sentences: Sequence[Sequence[str]]) -> int:
    """The number of the sentence that says most of the rest, by ROUGE-1: what there is to write without a summary.

    The first of several. So are the sentences found that are left out in pretraining of Zhang et al. (2020, PEGASUS,
    section 3.1, "Ind-Orig").

    Args:
      sentences: the words of each; one sentence at least.
    """
    counts = [Counter(words) for words in sentences]
    everything = Counter(itertools.chain.from_iterable(sentences))
    # F1 is twice the words in common, over those of the sentence and of the rest together: of all, for each the same.
    return max(range(len(counts)), key=lambda number: (counts[number] & (everything - counts[number])).total())


def _joints(sentences: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """The pairs of words that stand where sentences meet."""
    with_words = [sentence for sentence in sentences if sentence]
    return [(before[-1], after[0]) for before, after in zip(with_words, with_words[1:])]


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[first:] for first in range(n))))


class _Overlap:
    """How often each of N sentences has each of the G different n-grams of a reference."""

    def __init__(self, reference: Sequence[str], sentences: Sequence[Sequence[str]], n: int):
        grams = _ngrams(reference, n)
        self._n, self._places = n, {gram: place for place, gram in enumerate(grams)}
        self._wanted = np.array(list(grams.values()), np.int64)  # [G]
        self._counts = np.zeros((len(sentences), len(grams)), np.int64)
        for number, sentence in enumerate(sentences):
            for gram, count in _ngrams(sentence, n).items():
                if gram in self._places:
                    self._counts[number, self._places[gram]] = count

    def f1(self, chosen: Sequence[int], totals: np.ndarray, joints: Sequence[Sequence[tuple[str, str]]]) -> np.ndarray:
        """[N] F1, 0 to 1, of each sentence together with those that are chosen.

        Args:
          totals: [N] words in all of them.
          joints: the pairs of words that stand where they meet.
        """
        counts = self._counts + self._counts[chosen].sum(axis=0)
        for number, pairs in enumerate(joints):
            for pair in pairs:
                if pair in self._places:  # never where n is 1
                    counts[number, self._places[pair]] += 1
        common = np.minimum(counts, self._wanted).sum(axis=1)
        precision = common / np.maximum(totals - self._n + 1, 1)
        recall = common / max(self._wanted.sum(), 1)
        figures = np.zeros(len(counts))
        return np.divide(2 * precision * recall, precision + recall, out=figures, where=common > 0)
