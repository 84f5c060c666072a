"""Tokenizes many texts. A text that spells a special token is ordinary text."""
import itertools
from collections.abc import Iterable, Iterator

from tokenizers import Encoding, Tokenizer

from spanbert_jax.text import special_tokens_as_text

_BATCH = 1024  # texts tokenized at once: an encoding takes a kilobyte, and about a hundred bytes per token


def encode_texts(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[Encoding]:
    """Yields the tokens of texts one by one, without special tokens."""
    plain, texts = special_tokens_as_text(tokenizer), iter(texts)
    while batch := list(itertools.islice(texts, _BATCH)):
        yield from plain.encode_batch(batch, add_special_tokens=False)


def tokenize_words(words: Iterable[str], tokenizer: Tokenizer) -> dict[str, list[int]]:
    """The token ids of each distinct word; none for a word of characters that the tokenizer removes."""
    distinct = dict.fromkeys(words)
    return {word: encoding.ids for word, encoding in zip(distinct, encode_texts(distinct, tokenizer), strict=True)}
