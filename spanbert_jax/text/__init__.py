"""Words to tokens: the WordPiece tokenizer, its special pieces and word starts, and sentence ends."""
from spanbert_jax.text.sentences import line_spans, sentence_spans
from spanbert_jax.text.tokenizer import (
    CONTINUATION,
    MIN_VOCAB_SIZE,
    SPECIAL_PIECES,
    SpecialIds,
    load_tokenizer,
    lowers_case,
    of_plain_text,
    special_ids,
    train_tokenizer,
    word_start_table,
)

__all__ = ["CONTINUATION", "MIN_VOCAB_SIZE", "SPECIAL_PIECES", "SpecialIds", "line_spans", "load_tokenizer",
           "lowers_case", "of_plain_text", "sentence_spans", "special_ids", "train_tokenizer", "word_start_table"]
