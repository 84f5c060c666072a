"""Tokenizes many texts. A text that spells a special token is ordinary text."""
import functools
import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np
from tokenizers import Encoding, Tokenizer

from spanbert_jax.corpus.documents import split_position
from spanbert_jax.text import keeps_spaces, special_tokens_as_text, token_offsets

_JOINERS = "\u200c\u200d"  # invisible; after a mark they determine the form of the letter
_SOFT_HYPHEN = "\u00ad"
# Of the invisible format characters (Unicode's category Cf), those that separate words, and those that act on what
# follows: signs before numbers, and starts of directional runs.
_SEPARATORS = "\u200b\u2060\ufeff"
_OPENING = ("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\u202a\u202b\u202d\u202e\u2066\u2067"
            "\u2068\ufff9\U000110bd\U000110cd")
# Texts, and about how many characters, are tokenized at once: an encoding takes a kilobyte, and about two hundred bytes
# per character.
_BATCH, _CHARACTERS = 1024, 1 << 21
# Of a text of which only so many tokens are needed, so many characters are tokenized at first; more if they are few
# tokens. A cut may change the tokens near it: so many, which is far more than a word has.
_PER_TOKEN, _LEAST, _NEAR_CUT = 16, 10_000, 1_000


def encode_texts(texts: Iterable[str], tokenizer: Tokenizer, most: int | None = None) -> Iterator[Encoding]:
    """Yields the tokens of texts one by one, without special tokens.

    With `most`, the first tokens of a text, at least so many if it has them: the rest of a long text is not tokenized.
    """
    plain = _plain(tokenizer)
    for batch in _batches(texts):
        size = max(_LEAST, _PER_TOKEN * (most + _NEAR_CUT)) if most is not None else max(map(len, batch))
        encodings = plain.encode_batch([_start(text, size) for text in batch], add_special_tokens=False)
        for text, encoding in zip(batch, encodings, strict=True):
            longer = size
            while len(text) > longer and len(encoding) < (most or 0) + _NEAR_CUT:
                longer *= 4
                encoding = plain.encode(_start(text, longer), add_special_tokens=False)
            yield encoding


def _start(text: str, size: int) -> str:
    """The first characters of a text, up to a space if there is one near."""
    return text if len(text) <= size else text[:split_position(text, size // 2, size)].rstrip()


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Batches of `_BATCH` texts; one with long texts ends as soon as it has more than `_CHARACTERS`."""
    batch, size = list[str](), 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if len(batch) == _BATCH or size > _CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@functools.lru_cache(maxsize=2)
def _plain(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer without special tokens in texts, which takes seconds to make for a vocabulary of 250,000."""
    return special_tokens_as_text(tokenizer)


def token_characters(text: str, encoding: Encoding) -> np.ndarray:
    """[n, 2] int32: first character and end of each token of a text.

    White space is left out. A lower-casing tokenizer drops combining marks, such as accents of decomposed text and
    vowel signs of Hindi, and its offsets leave them out at the end of a token. Here a token extends to the end of its
    marks.
    """
    characters = token_offsets(text, encoding)
    if not text.isascii():
        ends, nexts = characters[:, 1], np.append(characters[1:, 0], len(text))
        for token in np.flatnonzero(ends < nexts).tolist():
            ends[token] = _end_of_marks(text, int(ends[token]), int(nexts[token]))
    return characters


def _end_of_marks(text: str, end: int, stop: int) -> int:
    """The end of the marks of a token's last letter, from the `end` that the tokenizer gives; at most `stop`."""
    while end < stop and (_is_mark(text[end]) or (text[end] in _JOINERS and _is_mark(text[end - 1]))):
        end += 1
    return end


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def with_format_characters(text: str, start: int, end: int) -> tuple[int, int]:
    """A span of a text with the format characters of its first and last character, which tokenizers drop.

    Such are the tags of a flag, marks of the direction of writing, and the joiners of emoji. One between two visible
    characters belongs to the first unless it acts on what follows; a joiner of two letters or symbols belongs to
    neither.
    """
    first, last = start, end
    while last < len(text) and _is_format(text[last]) and text[last] not in _OPENING:
        last += 1
    if last < len(text) and unicodedata.category(text[last])[0] in "LMNS":
        last = end + len(text[end:last].rstrip(_JOINERS + _SOFT_HYPHEN))
    while first > 0 and _is_format(text[first - 1]):
        first -= 1
    if first > 0 and not (text[first - 1].isspace() or text[first - 1] in _SEPARATORS):
        first = next((place for place in range(first, start) if text[place] in _OPENING), start)
    return first, last


def _is_format(character: str) -> bool:
    return unicodedata.category(character) == "Cf" and character not in _SEPARATORS


def tokenize_words(words: Iterable[str], tokenizer: Tokenizer) -> dict[str, list[int]]:
    """The token ids of each distinct word; none for a word of characters that the tokenizer removes.

    If the tokenizer keeps spaces, a word has one before it, as `add_prefix_space` adds it in transformers.
    """
    distinct, space = dict.fromkeys(words), " " * keeps_spaces(tokenizer)
    encodings = encode_texts((space + word for word in distinct), tokenizer)
    return {word: encoding.ids for word, encoding in zip(distinct, encodings, strict=True)}
