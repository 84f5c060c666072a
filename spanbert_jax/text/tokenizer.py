"""BERT WordPiece by the `tokenizers` library: loading, training, special pieces and word starts."""
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
    """Ids of the five special pieces."""
    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


def load_tokenizer(path: str | pathlib.Path, lowercase: bool | None = None) -> Tokenizer:
    """Loads a BERT WordPiece tokenizer; ids equal those of Hugging Face's BertTokenizerFast.

    Args:
      path: a vocab.txt, a tokenizer.json, or a directory holding one (tokenizer.json is preferred).
      lowercase: whether a vocab.txt lower-cases. None: as `do_lower_case` in a tokenizer_config.json beside it says;
        without one, only if no piece but those in brackets has a capital letter. A tokenizer.json settles it itself.
        Either is not believed, and that is logged, where it lower-cases before a vocabulary with capital letters: such
        files go round with models derived from SpanBERT, and make half of their vocabulary useless.

    Raises:
      UserError: no such file, not a BERT WordPiece, a special piece missing, or `lowercase` against the tokenizer.json.
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
    """Trains a WordPiece vocabulary; the same texts always give the same pieces and ids.

    The library numbers the characters inside words in hash order and breaks ties between merges by these numbers, so
    two runs differ. Giving it the alphabet beforehand, in a fixed order, settles both.

    Args:
      texts: read twice; a one-time iterator is gathered into a list.
      vocab_size: pieces wanted at most, specials included; special pieces come first, [PAD] = 0.
      lowercase: lower-case the text and strip its accents.

    Raises:
      UserError: vocab_size below 64, or no text.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise UserError(f"vocab_size is {vocab_size}: it must be at least {MIN_VOCAB_SIZE}")
    texts = list(texts) if iter(texts) is texts else texts
    normalizer = _normalizer(lowercase)
    counts = collections.Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    for blank in [c for c in counts if c.isspace()]:
        del counts[blank]
    if not counts:
        raise UserError("the texts to train a vocabulary on hold no text")
    limit = min(_MAX_ALPHABET, (vocab_size - len(SPECIAL_TOKENS)) // 4)
    alphabet = sorted(sorted(counts, key=lambda c: (-counts[c], c))[:limit])

    untrained = _bare(models.WordPiece(unk_token="[UNK]"), lowercase)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, limit_alphabet=len(alphabet), show_progress=False,
        special_tokens=[*SPECIAL_TOKENS, *alphabet, *(CONTINUATION_PREFIX + c for c in alphabet)])
    untrained.train_from_iterator(texts, trainer)
    pieces = sorted(untrained.get_vocab(), key=untrained.get_vocab().get)
    return _build({piece: i for i, piece in enumerate(pieces[:vocab_size])}, lowercase)


def special_tokens_as_text(tokenizer: Tokenizer) -> Tokenizer:
    """A copy for which what a text spells like a special piece, such as [SEP], is words."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.encode_special_tokens = True
    return copy


def is_lowercasing(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer makes capital letters small, by whatever normalizer."""
    return tokenizer.normalizer is not None and tokenizer.normalizer.normalize_str("A") == "a"


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """Ids of the special pieces of a tokenizer from `load_tokenizer` or `train_tokenizer`."""
    return SpecialIds(*(tokenizer.token_to_id(piece) for piece in SPECIAL_TOKENS))


def word_start_table(tokenizer: Tokenizer) -> np.ndarray:
    """[V] uint8, 1 for pieces that begin a word ([UNK] does), 0 for `##` pieces, [PAD], [CLS], [SEP] and [MASK]."""
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    table = np.ones(max(vocab.values()) + 1, np.uint8)
    for piece, i in vocab.items():
        if piece.startswith(CONTINUATION_PREFIX) and len(piece) > len(CONTINUATION_PREFIX):
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


def _load_json(file: pathlib.Path, lowercase: bool | None) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises a bare Exception
        raise UserError(f"tokenizer {file}: not a tokenizer.json ({error})") from None
    model = tokenizer.model
    if not isinstance(model, models.WordPiece) or model.continuing_subword_prefix != CONTINUATION_PREFIX:
        raise UserError(f"tokenizer {file}: its model is {type(model).__name__}; a WordPiece with '##' is needed")
    _check_special(file, tokenizer.get_vocab(with_added_tokens=True))
    own = getattr(tokenizer.normalizer, "lowercase", None)
    pieces = tokenizer.get_vocab(with_added_tokens=False)
    if lowercase is None and is_lowercasing(tokenizer) and _is_cased(pieces):
        _tell_not_believed(file, pieces)
        if isinstance(tokenizer.normalizer, normalizers.BertNormalizer):
            tokenizer.normalizer.lowercase = False
        else:
            tokenizer.normalizer = _normalizer(lowercase=False)
    if lowercase is not None and own is not None and own != lowercase:
        raise UserError(f"tokenizer {file}: lowercase is {own} in the file but {lowercase} was asked; leave it unset")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _read_vocab(file: pathlib.Path) -> dict[str, int]:
    try:
        with open(file, encoding="utf-8") as lines:
            pieces = [line.rstrip("\n") for line in lines]
    except UnicodeDecodeError as error:
        raise UserError(f"tokenizer {file}: not UTF-8 (byte {error.start}); a vocab.txt has one piece a line") from None
    vocab = {}
    for i, piece in enumerate(pieces):
        if vocab.setdefault(piece, i) != i:
            raise UserError(f"tokenizer {file}: line {i + 1} repeats piece {piece!r} of line {vocab[piece] + 1}")
    _check_special(file, vocab)
    return vocab


def _check_special(file: pathlib.Path, vocab: dict[str, int]) -> None:
    missing = [piece for piece in SPECIAL_TOKENS if piece not in vocab]
    if missing:
        raise UserError(f"tokenizer {file}: special pieces missing: {', '.join(missing)}; BERT's five are needed")


def _read_config(file: pathlib.Path) -> dict[str, Any]:
    """What a tokenizer_config.json says; nothing where there is none."""
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise UserError(f"tokenizer {file}: not a JSON object; mend or remove it") from None


def _decide_lowercase(file: pathlib.Path, stated: bool | None, vocab: dict[str, int]) -> bool:
    if stated and _is_cased(vocab):
        _tell_not_believed(file, vocab)
        return False
    return not _capitals(vocab) if stated is None else bool(stated)


def _capitals(pieces: Iterable[str]) -> int:
    """How many pieces, but for those in brackets, have a capital letter."""
    return sum(piece != piece.lower() and piece[:1] + piece[-1:] not in ("[]", "<>") for piece in pieces)


def _is_cased(pieces: Collection[str]) -> bool:
    """Whether a vocabulary was made of text in which case was kept; a few pieces may have been added to another."""
    return _capitals(pieces) >= _CASED_SHARE * len(pieces)


def _tell_not_believed(file: pathlib.Path, pieces: Collection[str]) -> None:
    logger.warning("tokenizer %s lower-cases, but %s of its %s pieces have capital letters: case is kept", file,
                   f"{_capitals(pieces):,}", f"{len(pieces):,}")


def _normalizer(lowercase: bool) -> normalizers.Normalizer:
    return normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lowercase)


def _bare(model: models.Model, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = _normalizer(lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _build(vocab: dict[str, int], lowercase: bool) -> Tokenizer:
    model = models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=_MAX_WORD_CHARACTERS)
    tokenizer = _bare(model, lowercase)
    tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in SPECIAL_TOKENS])
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION_PREFIX)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(piece, vocab[piece]) for piece in ("[CLS]", "[SEP]")])
    return tokenizer
