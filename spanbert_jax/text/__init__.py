"""Text to tokens: WordPiece and target tokenizers, their special tokens, word starts, and sentence boundaries."""
from spanbert_jax.text.sentences import line_spans, sentence_spans
from spanbert_jax.text.tokenizer import (
    CONTINUATION_PREFIX,
    SPECIAL_TOKEN_FIELDS,
    SPECIAL_TOKENS,
    SpecialIds,
    is_lowercasing,
    special_ids,
    special_tokens_as_text,
    vocabulary_size,
    with_one_token_type,
    word_start_table,
)
from spanbert_jax.text.tokenizer_files import ADDED_TOKEN_FLAGS, load_tokenizer
from spanbert_jax.text.tokenizer_training import CHARACTER_COVERAGE, MAX_VOCAB_SIZE, MIN_VOCAB_SIZE, train_tokenizer

__all__ = ["ADDED_TOKEN_FLAGS", "CHARACTER_COVERAGE", "CONTINUATION_PREFIX", "MAX_VOCAB_SIZE", "MIN_VOCAB_SIZE",
           "SPECIAL_TOKENS", "SPECIAL_TOKEN_FIELDS", "SpecialIds", "is_lowercasing", "line_spans", "load_tokenizer",
           "sentence_spans", "special_ids", "special_tokens_as_text", "train_tokenizer", "vocabulary_size",
           "with_one_token_type", "word_start_table"]
