"""Sentence boundaries by punctuation: good enough for cutting blocks, in every script that marks sentence ends."""
import re

# A run of stops is matched at its first mark only and without backtracking, so a megabyte of dots costs one scan.
_END = re.compile(r"""
    \n[^\S\n]*+\n                                                              # a blank line ends a paragraph
  | (?<![.!?…]) [.!?…]++ ["'”’»)\]]{0,4}+ (?= \s++ (?![a-zà-ÿ]) )     # a stop, not before a lower-case letter
  | [。！？｡।؟۔]++ ["'”’」』）】》]{0,4}+                               # stops that need no space
""", re.VERBOSE)

_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof rev hon gen col capt lt sgt st jr sr vs etc cf eg ie e.g i.e viz al no vol fig ed pp approx "
    "dept inc ltd co corp gov sen rep jan feb mar apr jun jul aug sep sept oct nov dec a.m p.m u.s".split())


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Returns the half-open character spans of sentences, without surrounding white space.

    A blank line ends a sentence; a line end does not: prose may be hard-wrapped. All outside the spans is white space.
    """
    spans, start = list[tuple[int, int]](), 0
    for match in _END.finditer(text):
        end = match.end()
        if text[match.start()] == "." and end - match.start() == 1 and _is_abbreviated(text, start, match.start()):
            continue
        _append(spans, text, start, end)
        start = end
    _append(spans, text, start, len(text))
    return spans


def line_spans(text: str) -> list[tuple[int, int]]:
    """Returns the half-open character spans of non-empty lines, without surrounding white space."""
    spans, start = list[tuple[int, int]](), 0
    for line in text.split("\n"):
        _append(spans, text, start, start + len(line))
        start += len(line) + 1
    return spans


def _is_abbreviated(text: str, start: int, stop: int) -> bool:
    """Returns whether the stop at `stop` ends an abbreviation or an initial, such as the J. of J. Austen."""
    word = text[max(start, stop - 12):stop].split()
    if not word:
        return False
    last = word[-1].lstrip("(\"'“‘[")
    return last.lower() in _ABBREVIATIONS or (len(last) == 1 and last.isupper() and last != "I")


def _append(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    sentence = text[start:end]
    stripped = sentence.strip()
    if stripped:
        start += len(sentence) - len(sentence.lstrip())
        spans.append((start, start + len(stripped)))
