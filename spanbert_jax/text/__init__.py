"""Text to tokens: tokenizers of any kind, their special tokens, word starts, and sentence boundaries."""
from spanbert_jax.text.sentences import line_spans, sentence_spans
from spanbert_jax.text.special_tokens import (
    SPECIAL_TOKENS,
    PairLayout,
    SpecialIds,
    pair_layout,
    special_ids,
    special_tokens,
    special_tokens_as_text,
    with_one_token_type,
)
from spanbert_jax.text.tokenizer import is_lowercasing, vocabulary_size
from spanbert_jax.text.tokenizer_components import MAX_VOCAB_SIZE
from spanbert_jax.text.tokenizer_files import ADDED_TOKEN_FLAGS, load_tokenizer, parse_tokenizer
from spanbert_jax.text.tokenizer_training import (
    CHARACTER_COVERAGE,
    MIN_VOCAB_SIZES,
    TOKENIZER_MODELS,
    train_tokenizer,
)
from spanbert_jax.text.word_spans import word_spans
from spanbert_jax.text.words import (
    Spelling,
    WordStarts,
    is_byte_level,
    keeps_spaces,
    pretoken_numbers,
    spelling,
    token_offsets,
    word_starts,
)

__all__ = ["ADDED_TOKEN_FLAGS", "CHARACTER_COVERAGE", "MAX_VOCAB_SIZE", "MIN_VOCAB_SIZES",
           "SPECIAL_TOKENS", "TOKENIZER_MODELS", "PairLayout", "SpecialIds", "Spelling", "WordStarts", "is_byte_level",
           "is_lowercasing", "keeps_spaces", "line_spans", "load_tokenizer", "pair_layout", "parse_tokenizer",
           "pretoken_numbers", "sentence_spans", "special_ids", "special_tokens", "special_tokens_as_text", "spelling",
           "token_offsets", "train_tokenizer", "vocabulary_size", "with_one_token_type", "word_spans",
           "word_starts"]
