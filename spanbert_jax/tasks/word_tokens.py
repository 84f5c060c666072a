"""Words that a file gives one by one, tokenised each on its own."""
from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer

from spanbert_jax.text import special_tokens_as_text

_BATCH = 8192  # words that are tokenised at once: what the tokenizer makes of them takes a kilobyte a word


def word_pieces(words: Iterable[str], tokenizer: Tokenizer) -> dict[str, list[int]]:
    """The pieces of each different word, none where it has only characters that the tokenizer removes.

    What a word spells like a special piece is text.
    """
    tokenizer = special_tokens_as_text(tokenizer)
    different, pieces = list(dict.fromkeys(words)), {}
    for start in range(0, len(different), _BATCH):
        batch = different[start:start + _BATCH]
        encodings = tokenizer.encode_batch(batch, add_special_tokens=False)
        pieces |= {word: encoding.ids for word, encoding in zip(batch, encodings, strict=True)}
    return pieces
