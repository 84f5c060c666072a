"""Words and tokens: how the tokens of any vocabulary are spelled, which of them begin a word, and where they stand."""
import dataclasses
import functools
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from tokenizers import Encoding, Tokenizer, models

from spanbert_jax.text.special_tokens import special_ids
from spanbert_jax.text.tokenizer import vocabulary_size

_SPACE_MARK = "▁"  # of SentencePiece, in place of a space
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # a byte of a character that the vocabulary lacks
# Scripts without spaces between words, by the names of their characters: each token of them begins a word.
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "BOPOMOFO")
# Kinds of a token's first and last character. Combining marks, and bytes that continue a character, are inside.
_LETTER, _OTHER, _UNSPACED_LETTER, _INSIDE = range(4)
_WHITE_SPACE = np.array([number for number in range(0x3001) if chr(number).isspace()], np.uint32)
_TEXT_BITS = 32  # a pre-token's number in its text has fewer


@dataclasses.dataclass(frozen=True)
class Spelling:
    """How the V tokens of a vocabulary are spelled."""
    bodies: tuple[bytes, ...]  # UTF-8 of a token without its mark; a token may hold only a part of a character
    begins: np.ndarray  # [V] bool: marked as the first token of a word, by a space before it or by no "##"
    prefix: str  # mark of the tokens inside words, "##"; "" if those after a space have a mark

    def join(self, ids: Sequence[int]) -> str:
        """The text of tokens, with a space before each first one of a word but the first of all."""
        parts = (b" " * bool(self.begins[i]) + self.bodies[i] for i in ids)
        return b"".join(parts).decode("utf-8", "replace").removeprefix(" ")


def spelling(tokenizer: Tokenizer) -> Spelling:
    """Returns the spelling of a vocabulary: WordPiece, byte-level BPE, or one with SentencePiece's mark of spaces."""
    model, size = tokenizer.model, vocabulary_size(tokenizer)
    prefix = getattr(model, "continuing_subword_prefix", None)
    suffix = getattr(model, "end_of_word_suffix", None) or ""
    added = tokenizer.get_added_tokens_decoder()
    to_bytes = _from_byte_characters if is_byte_level(tokenizer) else _from_marked
    bodies, begins = [b""] * size, np.zeros(size, bool)
    for token, i in tokenizer.get_vocab(with_added_tokens=True).items():
        if i in added:
            bodies[i], begins[i] = token.encode(), bool(prefix)
        elif prefix:
            begins[i] = not token.startswith(prefix) or token == prefix
            bodies[i] = (token if begins[i] else token.removeprefix(prefix)).encode()
        else:
            body = to_bytes(token.removesuffix(suffix))
            begins[i], bodies[i] = body.startswith(b" "), body.removeprefix(b" ")
    return Spelling(tuple(bodies), begins, prefix or "")


def is_byte_level(tokenizer: Tokenizer) -> bool:
    """Returns whether the vocabulary is one of bytes, as in GPT-2."""
    parts = (tokenizer.pre_tokenizer, tokenizer.decoder)
    return any('"ByteLevel"' in part.__getstate__().decode() for part in parts if part is not None)


def keeps_spaces(tokenizer: Tokenizer) -> bool:
    """Returns whether a word is tokenized in another way at the start of a text than after a space."""
    other, start, both = (tokenizer.encode(text, add_special_tokens=False).ids for text in ("b", "a", "b a"))
    return both[len(other):] != start


@dataclasses.dataclass(frozen=True)
class WordStarts:
    """Finds the first token of each word.

    With WordPiece, these are the tokens without "##". Otherwise, a word is what the tokenizer's own pre-tokenizer makes
    one, divided further where that makes none of BERT's kind: at a mark of a space, between letters and punctuation,
    and before each token of a script without spaces. A token of only a space belongs to the word after it.
    """
    table: np.ndarray  # [V] uint8: tokens that begin a word, whatever is before them; special tokens but [UNK] do not
    kinds: np.ndarray | None  # [V, 2] kinds of a token's first and last character; None for WordPiece
    blank: np.ndarray  # [V] bool: tokens of only a space

    def __call__(self, tokens: np.ndarray, pretokens: np.ndarray) -> np.ndarray:
        """Returns [n] uint8: 1 for first tokens of words.

        Args:
          tokens: [n] token ids of several texts.
          pretokens: [n] number of the pre-token of each; see `pretoken_numbers`. Not used for WordPiece.
        """
        starts = self.table[tokens]
        if self.kinds is None or not len(tokens):
            return starts
        first, last = self.kinds[tokens].T
        known = np.maximum.accumulate(np.where(last == _INSIDE, 0, np.arange(len(tokens))))
        before, last_blank = np.roll(last[known], 1), np.roll(self.blank[tokens], 1)
        opens = (starts > 0) | ((first != before) & (first != _INSIDE))
        opens |= np.diff(pretokens, prepend=-1) != 0
        same_text = np.diff(pretokens >> _TEXT_BITS, prepend=-1) == 0
        return (opens & ~(last_blank & same_text)).astype(np.uint8)


def word_starts(tokenizer: Tokenizer) -> WordStarts:
    """Returns what finds the words in the tokens of a tokenizer."""
    spelled, ids = spelling(tokenizer), special_ids(tokenizer)
    table = spelled.begins.astype(np.uint8)
    table[[ids.pad, ids.cls, ids.sep, ids.mask]] = 0
    blank = spelled.begins & np.array([not body for body in spelled.bodies])
    if isinstance(tokenizer.model, models.WordPiece) and spelled.prefix:
        return WordStarts(table, None, blank)
    kinds = np.array([_kinds(body) for body in spelled.bodies], np.uint8).reshape(-1, 2)
    kinds[ids.unk] = _INSIDE  # a character of a word
    return WordStarts(table | (kinds[:, 0] == _UNSPACED_LETTER), kinds, blank)


def pretoken_numbers(encodings: Sequence[Encoding], first_text: int) -> np.ndarray:
    """Returns [n] int64, the number of the text, from `first_text` on, and of the pre-token of each token."""
    numbers = [np.array(encoding.word_ids, np.int64) + (text << _TEXT_BITS)
               for text, encoding in enumerate(encodings, first_text)]
    return np.concatenate(numbers or [np.zeros(0, np.int64)])


def token_offsets(text: str, encoding: Encoding) -> np.ndarray:
    """Returns [n, 2] int32: first character and end of each token of a text, without white space around the token.

    Tokens of byte-level and similar vocabularies include the space before a word. Both columns are non-decreasing.
    """
    offsets = np.array(encoding.offsets, np.int32).reshape(-1, 2)
    characters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    space, place = np.isin(characters, _WHITE_SPACE), np.arange(len(text) + 1, dtype=np.int32)
    following = np.minimum.accumulate(np.append(np.where(space, len(text), place[:-1]), len(text))[::-1])[::-1]
    preceding = np.maximum.accumulate(np.append(0, np.where(space, 0, place[1:])))
    starts = np.minimum(following[offsets[:, 0]], offsets[:, 1])
    return np.stack([starts, np.maximum(preceding[offsets[:, 1]], starts)], axis=1).astype(np.int32)


def byte_characters(text: str) -> str:
    """Returns a text as byte-level vocabularies spell it."""
    characters = {byte: character for character, byte in _byte_of_character().items()}
    return "".join(characters[byte] for byte in text.encode())


def mark_spaces(text: str) -> str:
    """Returns a text with SentencePiece's mark in place of spaces."""
    return text.replace(" ", _SPACE_MARK)


@functools.cache
def _byte_of_character() -> dict[str, int]:
    """GPT-2's characters for the 256 bytes: printable ones for themselves, the others from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


def _from_byte_characters(token: str) -> bytes:
    table = _byte_of_character()
    return bytes(table[character] for character in token) if all(c in table for c in token) else token.encode()


def _from_marked(token: str) -> bytes:
    if match := _BYTE.fullmatch(token):
        return bytes([int(match[1], 16)])
    return token.replace(_SPACE_MARK, " ").encode()


def _kinds(body: bytes) -> tuple[int, int]:
    """Kinds of the first and the last character of a token; that of a character's first bytes is guessed from them."""
    starts = [place for place, byte in enumerate(body) if byte & 0xC0 != 0x80]  # the others continue a character
    if not starts:
        return (_INSIDE, _INSIDE) if body else (_OTHER, _OTHER)
    first = body[starts[0]:starts[1]] if len(starts) > 1 else body[starts[0]:]
    return _kind(first) if starts[0] == 0 else _INSIDE, _kind(body[starts[-1]:])


def _kind(encoded: bytes) -> int:
    """The kind of a character, whose last bytes may be missing."""
    missing = (encoded[0] >= 0xC0) + (encoded[0] >= 0xE0) + (encoded[0] >= 0xF0) + 1 - len(encoded)
    character = (encoded + b"\xa0" * missing).decode("utf-8", "replace")[0]
    category = unicodedata.category(character)
    if category[0] == "M":
        return _INSIDE
    if unicodedata.name(character, "").startswith(_UNSPACED):
        return _UNSPACED_LETTER
    return _LETTER if category[0] in "LN" else _OTHER
