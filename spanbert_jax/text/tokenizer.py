"""BERT WordPiece tokenizers of the `tokenizers` library: loading, training, special tokens and word starts."""
import collections
import dataclasses
import json
import logging
import pathlib
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from spanbert_jax.common.errors import UserError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUATION_PREFIX = "##"
MIN_VOCAB_SIZE = 64
logger = logging.getLogger("spanbert_jax")
_MAX_WORD_CHARACTERS = 100
_CASED_SHARE = 0.01
_MAX_ALPHABET = 1000


@dataclasses.dataclass(frozen=True)
class SpecialIds:
    """Ids of BERT's five special tokens."""
    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


def load_tokenizer(path: str | pathlib.Path, lowercase: bool | None = None) -> Tokenizer:
    """Loads a BERT WordPiece tokenizer. Its ids equal those of Hugging Face's BertTokenizerFast.

    Args:
      path: a vocab.txt, a tokenizer.json, or a directory with one of them (tokenizer.json is preferred).
      lowercase: whether the tokenizer of a vocab.txt lower-cases. None uses `do_lower_case` of a tokenizer_config.json
        beside it; without one, it lower-cases if no token except those in brackets has a capital letter. A
        tokenizer.json defines it itself. If either file asks for lower-casing but the vocabulary has capital letters,
        case is kept and a warning is logged: such files come with models derived from SpanBERT, and lower-casing would
        make half of their vocabulary unreachable.

    Raises:
      UserError: the file does not exist, is no BERT WordPiece tokenizer, lacks a special token, or a tokenizer.json
        contradicts `lowercase`.
    """
    file = _tokenizer_file(pathlib.Path(path))
    if file.suffix == ".json":
        return _load_json(file, lowercase)
    vocab, stated = _read_vocab(file), _read_config(file.with_name("tokenizer_config.json"))
    if lowercase is None:
        lowercase = _decide_lowercase(file, stated.get("do_lower_case"), vocab)
    tokenizer = _build(vocab, lowercase)
    tokenizer.normalizer.strip_accents = stated.get("strip_accents")
    tokenizer.normalizer.handle_chinese_chars = stated.get("tokenize_chinese_chars") is not False
    return tokenizer


def train_tokenizer(texts: Iterable[str], vocab_size: int, lowercase: bool = False) -> Tokenizer:
    """Trains a WordPiece vocabulary. The same texts always give the same vocabulary.

    The library numbers the characters inside words in hash order and breaks ties between merges by these numbers, so
    two runs would differ. Passing the alphabet in a fixed order avoids that. Raises UserError if vocab_size is below
    64, or there is no text.

    Args:
      texts: read twice; an iterator is first collected into a list.
      vocab_size: maximum size, special tokens included. Special tokens come first, and [PAD] is 0.
      lowercase: lower-case the text and strip its accents.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise UserError(f"vocab_size is {vocab_size}: it must be at least {MIN_VOCAB_SIZE}")
    texts = list(texts) if iter(texts) is texts else texts
    normalizer = _normalizer(lowercase)
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    for blank in [c for c in counts if c.isspace()]:
        del counts[blank]
    if not counts:
        raise UserError("the texts to train a vocabulary on hold no text")
    limit = min(_MAX_ALPHABET, (vocab_size - len(SPECIAL_TOKENS)) // 4)
    alphabet = sorted(sorted(counts, key=lambda c: (-counts[c], c))[:limit])

    untrained = _without_special_tokens(models.WordPiece(unk_token="[UNK]"), lowercase)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, limit_alphabet=len(alphabet), show_progress=False,
        special_tokens=[*SPECIAL_TOKENS, *alphabet, *(CONTINUATION_PREFIX + c for c in alphabet)])
    untrained.train_from_iterator(texts, trainer)
    tokens = sorted(untrained.get_vocab(), key=untrained.get_vocab().get)
    return _build({token: i for i, token in enumerate(tokens[:vocab_size])}, lowercase)


def special_tokens_as_text(tokenizer: Tokenizer) -> Tokenizer:
    """Returns a copy that tokenizes special tokens in a text, such as "[SEP]", as ordinary text."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.encode_special_tokens = True
    return copy


def is_lowercasing(tokenizer: Tokenizer) -> bool:
    """Returns whether the normalizer of a tokenizer lower-cases."""
    return tokenizer.normalizer is not None and tokenizer.normalizer.normalize_str("A") == "a"


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """Returns the ids of the special tokens of a tokenizer from `load_tokenizer` or `train_tokenizer`."""
    return SpecialIds(*(tokenizer.token_to_id(token) for token in SPECIAL_TOKENS))


def word_start_table(tokenizer: Tokenizer) -> np.ndarray:
    """Returns [V] uint8: 1 for [UNK] and tokens that begin a word; 0 for `##` tokens and other special tokens."""
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    table = np.ones(max(vocab.values()) + 1, np.uint8)
    for token, i in vocab.items():
        if token.startswith(CONTINUATION_PREFIX) and len(token) > len(CONTINUATION_PREFIX):
            table[i] = 0
    ids = special_ids(tokenizer)
    table[[ids.pad, ids.cls, ids.sep, ids.mask]] = 0
    return table


def _tokenizer_file(path: pathlib.Path) -> pathlib.Path:
    if path.is_dir():
        for name in ("tokenizer.json", "vocab.txt"):
            if (path / name).is_file():
                return path / name
        raise UserError(f"tokenizer {path}: the directory holds neither tokenizer.json nor vocab.txt")
    if not path.is_file():
        raise UserError(f"tokenizer {path}: no such file; give a vocab.txt, a tokenizer.json or a directory with one")
    return path


def read_json(file: pathlib.Path) -> Tokenizer:
    """Reads a tokenizer.json of any kind, without padding and truncation. Raises UserError if it is not one."""
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises a bare Exception
        raise UserError(f"tokenizer {file}: not a tokenizer.json ({error})") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _load_json(file: pathlib.Path, lowercase: bool | None) -> Tokenizer:
    tokenizer = read_json(file)
    model = tokenizer.model
    if not isinstance(model, models.WordPiece) or model.continuing_subword_prefix != CONTINUATION_PREFIX:
        raise UserError(f"tokenizer {file}: its model is {type(model).__name__}; a WordPiece with '##' is needed")
    _check_special(file, tokenizer.get_vocab(with_added_tokens=True))
    own = getattr(tokenizer.normalizer, "lowercase", None)
    vocab = tokenizer.get_vocab(with_added_tokens=False)
    if lowercase is None and is_lowercasing(tokenizer) and _is_cased(vocab):
        _warn_case_is_kept(file, vocab)
        if isinstance(tokenizer.normalizer, normalizers.BertNormalizer):
            tokenizer.normalizer.lowercase = False
        else:
            tokenizer.normalizer = _normalizer(lowercase=False)
    if lowercase is not None and own is not None and own != lowercase:
        raise UserError(f"tokenizer {file}: lowercase is {own} in the file but {lowercase} was asked; leave it unset")
    return tokenizer


def _read_vocab(file: pathlib.Path) -> dict[str, int]:
    try:
        with open(file, encoding="utf-8") as lines:
            tokens = [line.rstrip("\n") for line in lines]
    except UnicodeDecodeError as error:
        raise UserError(f"tokenizer {file}: not UTF-8 (byte {error.start}); a vocab.txt has one token per "
                        "line") from None
    vocab: dict[str, int] = {}
    for i, token in enumerate(tokens):
        if vocab.setdefault(token, i) != i:
            raise UserError(f"tokenizer {file}: line {i + 1} repeats token {token!r} of line {vocab[token] + 1}")
    _check_special(file, vocab)
    return vocab


def _check_special(file: pathlib.Path, vocab: dict[str, int]) -> None:
    missing = [token for token in SPECIAL_TOKENS if token not in vocab]
    if missing:
        raise UserError(f"tokenizer {file}: special tokens missing: {', '.join(missing)}; BERT's five are needed")


def _read_config(file: pathlib.Path) -> dict[str, Any]:
    """Returns the content of a tokenizer_config.json; {} if there is none."""
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise UserError(f"tokenizer {file}: not a JSON object; fix or remove it") from None


def _decide_lowercase(file: pathlib.Path, stated: bool | None, vocab: dict[str, int]) -> bool:
    if stated and _is_cased(vocab):
        _warn_case_is_kept(file, vocab)
        return False
    return not _capitals(vocab) if stated is None else bool(stated)


def _capitals(tokens: Iterable[str]) -> int:
    """Returns the number of tokens with a capital letter, except those in brackets."""
    return sum(token != token.lower() and token[:1] + token[-1:] not in ("[]", "<>") for token in tokens)


def _is_cased(tokens: Collection[str]) -> bool:
    """Returns whether a vocabulary is cased. An uncased one may have a few added tokens with capital letters."""
    return _capitals(tokens) >= _CASED_SHARE * len(tokens)


def _warn_case_is_kept(file: pathlib.Path, tokens: Collection[str]) -> None:
    logger.warning("tokenizer %s lower-cases, but %s of its %s tokens have capital letters: case is kept", file,
                   f"{_capitals(tokens):,}", f"{len(tokens):,}")


def _normalizer(lowercase: bool) -> normalizers.Normalizer:
    return normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lowercase)


def _without_special_tokens(model: models.Model, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = _normalizer(lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _build(vocab: dict[str, int], lowercase: bool) -> Tokenizer:
    model = models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=_MAX_WORD_CHARACTERS)
    tokenizer = _without_special_tokens(model, lowercase)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION_PREFIX)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, vocab[token]) for token in ("[CLS]", "[SEP]")])
    return tokenizer
