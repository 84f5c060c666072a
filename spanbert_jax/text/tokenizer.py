"""Tokenizers of the `tokenizers` library: their size, their normalizer, and how BERT's are built."""
from collections.abc import Mapping

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from spanbert_jax.text.special_tokens import ROLES, SPECIAL_TOKENS, template

CONTINUATION_PREFIX = "##"
_MAX_WORD_CHARACTERS = 100


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """Returns the number of rows that an embedding of its tokens needs, V: the highest id and one.

    The library's own size is the number of entries, which is smaller if some ids have no entry.
    """
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def is_lowercasing(tokenizer: Tokenizer) -> bool:
    """Returns whether the normalizer of a tokenizer lower-cases."""
    return tokenizer.normalizer is not None and tokenizer.normalizer.normalize_str("A") == "a"


def bert_normalizer(lowercase: bool, strip_accents: bool | None = None) -> normalizers.Normalizer:
    """Returns BERT's normalizer; `strip_accents` None strips them if it lower-cases."""
    return normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=strip_accents, lowercase=lowercase)


def without_special_tokens(model: models.Model, normalizer: normalizers.Normalizer) -> Tokenizer:
    """Returns a tokenizer that splits words as BERT does."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def build_tokenizer(vocab: Mapping[str, int], normalizer: normalizers.Normalizer) -> Tokenizer:
    """Returns BERT's tokenizer for a vocabulary that has the five special tokens."""
    model = models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=_MAX_WORD_CHARACTERS)
    tokenizer = without_special_tokens(model, normalizer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION_PREFIX)
    tokenizer.post_processor = template(
        tokenizer, {role: ROLES[role][0] for role in ("cls", "sep")}, between_types=[0], second_type=1)
    return tokenizer
