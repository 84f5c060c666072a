"""BERT WordPiece tokenizers of the `tokenizers` library: special tokens, ids, word starts, and how they are built."""
import dataclasses
import json
from collections.abc import Mapping

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Their fields in the files of transformers: pad_token and so on.
SPECIAL_TOKEN_FIELDS = {f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS}
CONTINUATION_PREFIX = "##"
_MAX_WORD_CHARACTERS = 100


@dataclasses.dataclass(frozen=True)
class SpecialIds:
    """Ids of BERT's five special tokens."""
    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """Returns the ids of the special tokens of a tokenizer from `load_tokenizer` or `train_tokenizer`."""
    return SpecialIds(*(tokenizer.token_to_id(token) for token in SPECIAL_TOKENS))


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """Returns the number of rows that an embedding of its tokens needs, V: the highest id and one.

    The library's own size is the number of entries, which is smaller if some ids have no entry.
    """
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def special_tokens_as_text(tokenizer: Tokenizer) -> Tokenizer:
    """Returns a copy that tokenizes BERT's special tokens in a text, such as "[SEP]", as ordinary text.

    Other special tokens, such as "[E1]" of a tokenizer with markers of its own, remain tokens.
    """
    values = json.loads(tokenizer.to_str())
    for token in values["added_tokens"]:
        token["special"] &= token["content"] in SPECIAL_TOKENS
    copy = Tokenizer.from_str(json.dumps(values))
    copy.encode_special_tokens = True
    return copy


def is_lowercasing(tokenizer: Tokenizer) -> bool:
    """Returns whether the normalizer of a tokenizer lower-cases."""
    return tokenizer.normalizer is not None and tokenizer.normalizer.normalize_str("A") == "a"


def word_start_table(tokenizer: Tokenizer) -> np.ndarray:
    """Returns [V] uint8: 1 for [UNK] and tokens that begin a word; 0 for `##` tokens and other special tokens."""
    table = np.ones(vocabulary_size(tokenizer), np.uint8)
    for token, i in tokenizer.get_vocab(with_added_tokens=True).items():
        if token.startswith(CONTINUATION_PREFIX) and len(token) > len(CONTINUATION_PREFIX):
            table[i] = 0
    ids = special_ids(tokenizer)
    table[[ids.pad, ids.cls, ids.sep, ids.mask]] = 0
    return table


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
    tokenizer.post_processor = _template(vocab["[CLS]"], vocab["[SEP]"], second_type=1)
    return tokenizer


def with_one_token_type(tokenizer: Tokenizer) -> Tokenizer:
    """Returns a copy that gives both texts of a pair the token type 0."""
    copy, ids = Tokenizer.from_str(tokenizer.to_str()), special_ids(tokenizer)
    copy.post_processor = _template(ids.cls, ids.sep, second_type=0)
    return copy


def _template(cls: int, sep: int, second_type: int) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair=f"[CLS]:0 $A:0 [SEP]:0 $B:{second_type} [SEP]:{second_type}",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)])
