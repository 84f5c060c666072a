"""Words of a text as its characters, in every script, independent of any vocabulary."""
import bisect
import itertools
from collections.abc import Iterable

from tokenizers import Regex, pre_tokenizers

# Scripts without spaces between words: each character with its marks is a word. U+30FC lengthens a vowel of Katakana.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\x{30FC}"
# Marks, joiners and soft hyphens continue a word.
_INSIDE = r"\p{L}\p{N}\p{M}_\x{200C}\x{200D}\x{AD}"
_RUN = rf"[[{_INSIDE}]&&[^{_UNSPACED}]]+"
_SUFFIX = rf"['’](?i:s|re|ve|ll|d|m)(?![{_INSIDE}])"
_NOT = rf"(?i:n['’]t)(?![{_INSIDE}])"
_WORD = pre_tokenizers.Split(Regex("|".join((
    rf"[{_UNSPACED}]\p{{M}}*",
    r"(?:\p{L}\.){2,}",  # U.S.
    rf"(?<=[{_INSIDE}]){_SUFFIX}",  # 's
    _NOT,
    rf"[[\p{{L}}]&&[^{_UNSPACED}]]{{1,20}}?(?={_NOT})",  # do, before n't
    rf"\p{{N}}+(?:[.,:]\p{{N}}+)+(?![{_INSIDE}])",  # 1,000.5
    rf"{_RUN}(?:(?!{_SUFFIX})['’]{_RUN})*",
    r"\.{2,}|-{2,}",
    r"[^\s\p{Cc}\p{Cf}]\p{M}*"))), "removed", invert=True)


def word_spans(text: str, cuts: Iterable[int] = ()) -> list[tuple[int, int]]:
    """Returns the half-open character spans of words, without white space and control characters.

    Words are divided as in treebanks: "Lincoln's" is Lincoln and 's, "don't" is do and n't, and each punctuation mark
    is a word, as are those between hyphens. In scripts without spaces each character is one.

    Args:
      cuts: characters before which a word is split, should they be inside it.
    """
    spans = [span for _, span in _WORD.pre_tokenize_str(text)]
    ordered = sorted(set(cuts))
    if not ordered:
        return spans
    divided: list[tuple[int, int]] = []
    for start, end in spans:
        inner = ordered[bisect.bisect_right(ordered, start):bisect.bisect_left(ordered, end)]
        divided += itertools.pairwise((start, *inner, end))
    return divided
