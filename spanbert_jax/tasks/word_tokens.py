"""Tokenizes words one by one."""
from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer

from spanbert_jax.text import special_tokens_as_text

_BATCH = 8192  # words tokenized at once: an encoding takes a kilobyte per word


def tokenize_words(words: Iterable[str], tokenizer: Tokenizer) -> dict[str, list[int]]:
    """The token ids of each distinct word; none for a word of characters that the tokenizer removes.

    A word that spells a special token is ordinary text.
    """
    tokenizer = special_tokens_as_text(tokenizer)
    distinct = list(dict.fromkeys(words))
    tokens: dict[str, list[int]] = {}
    for start in range(0, len(distinct), _BATCH):
        batch = distinct[start:start + _BATCH]
        encodings = tokenizer.encode_batch(batch, add_special_tokens=False)
        tokens |= {word: encoding.ids for word, encoding in zip(batch, encodings, strict=True)}
    return tokens
