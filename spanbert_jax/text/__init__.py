"""Text to tokens: WordPiece and target tokenizers, their special tokens, word starts, and sentence boundaries."""
from spanbert_jax.text.sentences import line_spans, sentence_spans
from spanbert_jax.text.tokenizer import (
    CONTINUATION_PREFIX,
    MIN_VOCAB_SIZE,
    SPECIAL_TOKENS,
    SpecialIds,
    is_lowercasing,
    load_tokenizer,
    special_ids,
    special_tokens_as_text,
    train_tokenizer,
    word_start_table,
)

__all__ = ["CONTINUATION_PREFIX", "MIN_VOCAB_SIZE", "SPECIAL_TOKENS", "SpecialIds", "is_lowercasing", "line_spans",
           "load_tokenizer", "sentence_spans", "special_ids", "special_tokens_as_text", "train_tokenizer",
           "word_start_table"]
