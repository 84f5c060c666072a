"""Training of vocabularies: WordPiece, byte-level BPE and Unigram."""
import collections
import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.settings import require
from spanbert_jax.text.special_tokens import ROLES, SPECIAL_TOKENS, set_special_tokens
from spanbert_jax.text.tokenizer import (
    CONTINUATION_PREFIX,
    bert_normalizer,
    build_tokenizer,
    without_special_tokens,
)
from spanbert_jax.text.tokenizer_components import MAX_VOCAB_SIZE

# By model; that of bytes has 256 entries before the first merge.
MIN_VOCAB_SIZES = {"wordpiece": 64, "bpe": 320, "unigram": 64}
CHARACTER_COVERAGE = 0.9995
_MIN_ALPHABET = 1000  # characters that are kept whatever the coverage, as long as there is room
# Scores of Unigram: decimals that do not depend on the order of a sum, and the library's steps between the lowest.
_DECIMALS, _SCORE_STEP = 6, 0.0001


def train_tokenizer(texts: Iterable[str], vocab_size: int, lowercase: bool = False, *, model: str = "wordpiece",
                    strip_accents: bool | None = None, character_coverage: float = CHARACTER_COVERAGE) -> Tokenizer:
    """Trains a vocabulary. The same texts give the same vocabulary.

    Raises UserError if there is no text, or an argument is out of its range.

    Args:
      texts: read twice; an iterator is first collected into a list.
      vocab_size: maximum size, 64 (for bpe 320) to 2,000,000, special tokens included. BERT's special tokens come
        first, and [PAD] is 0.
      lowercase: lower-case the text.
      model: one of `TOKENIZER_MODELS`. "wordpiece" is BERT's; "bpe" that of GPT-2, RoBERTa and ModernBERT, of bytes, to
        which no word is unknown; "unigram" that of SentencePiece, ALBERT and XLM-R.
      strip_accents: strip accents and other combining marks; None strips them if the text is lower-cased.
      character_coverage: share of the text's characters, white space aside, that get an entry of their own; a word
        with any other character is [UNK], with unigram only that character, and with bpe none is. The most frequent
        come first, and equally frequent ones are treated alike. At least 1,000 characters get an entry. It is lower if
        `vocab_size` is too small.
    """
    require(model in TOKENIZER_MODELS, "model", model, f"allowed are {', '.join(TOKENIZER_MODELS)}")
    require(MIN_VOCAB_SIZES[model] <= vocab_size <= MAX_VOCAB_SIZE, "vocab_size", vocab_size,
            f"must be at least {MIN_VOCAB_SIZES[model]} and at most {MAX_VOCAB_SIZE}")
    require(0 < character_coverage <= 1, "character_coverage", character_coverage, "must be above 0 and at most 1")
    texts = list(texts) if iter(texts) is texts else texts
    return TOKENIZER_MODELS[model](_Training(texts, vocab_size, lowercase, strip_accents, character_coverage))


@dataclasses.dataclass(frozen=True)
class _Training:
    """The arguments of `train_tokenizer`."""
    texts: Iterable[str]
    vocab_size: int
    lowercase: bool
    strip_accents: bool | None
    character_coverage: float


def _wordpiece(training: _Training) -> Tokenizer:
    """Trains a WordPiece vocabulary.

    The library numbers the characters inside words in hash order and breaks ties between merges by these numbers, so
    two runs would differ. Passing the alphabet in a fixed order avoids that.
    """
    texts, vocab_size = training.texts, training.vocab_size
    normalizer = bert_normalizer(training.lowercase, training.strip_accents)
    wanted = _frequent_characters(texts, normalizer, training.character_coverage)
    # Up to half of the vocabulary is for characters. Those beyond get the places that are left over by word parts.
    room = (vocab_size - len(SPECIAL_TOKENS)) // 4 * 2
    sizes = accumulate(len(_entries(c, normalizer)) for c in wanted)
    alphabet = sorted(c for c, size in zip(wanted, sizes) if size <= room)
    inside = [c for c in alphabet if len(_entries(c, normalizer)) > 1]

    untrained = without_special_tokens(models.WordPiece(unk_token="[UNK]"), normalizer)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, limit_alphabet=len(alphabet), show_progress=False,
        special_tokens=[*SPECIAL_TOKENS, *alphabet, *(CONTINUATION_PREFIX + c for c in inside)])
    untrained.train_from_iterator(texts, trainer)
    tokens = sorted(untrained.get_vocab(), key=untrained.get_vocab().get)
    tokens += [entry for c in wanted[len(alphabet):] for entry in _entries(c, normalizer)]
    return build_tokenizer({token: i for i, token in enumerate(tokens[:vocab_size])}, normalizer)


def _bpe(training: _Training) -> Tokenizer:
    """Trains a byte-level BPE vocabulary, with the words of GPT-2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = _unicode_normalizer(normalizers.NFC(), training)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    _frequent_characters(training.texts, tokenizer.normalizer, 1.0)  # raises UserError if there is no text
    tokenizer.train_from_iterator(training.texts, trainers.BpeTrainer(
        vocab_size=training.vocab_size, special_tokens=list(SPECIAL_TOKENS), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    return _with_special_tokens(tokenizer)


def _unigram(training: _Training) -> Tokenizer:
    """Trains a Unigram vocabulary, with a mark for the space before a word as in SentencePiece."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = _unicode_normalizer(normalizers.NFKC(), training)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    wanted = _frequent_characters(training.texts, tokenizer.normalizer, training.character_coverage)
    kept = set(wanted[:training.vocab_size // 2])
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    normalized = (tokenizer.normalizer.normalize_str(text) for text in training.texts)
    trained.train_from_iterator(
        ("".join(c if c in kept else " " for c in text) for text in normalized), trainers.UnigramTrainer(
            vocab_size=training.vocab_size, special_tokens=list(SPECIAL_TOKENS), unk_token="[UNK]",
            show_progress=False))
    pieces = json.loads(trained.to_str())["model"]["vocab"][len(SPECIAL_TOKENS):]
    tokenizer.model = models.Unigram([*((token, 0.0) for token in SPECIAL_TOKENS), *_ranked(pieces)],
                                     SPECIAL_TOKENS.index("[UNK]"), False)
    return _with_special_tokens(tokenizer)


def _ranked(pieces: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Returns trained pieces of Unigram in the order of their scores, then of their text.

    The library gives the characters that training has dropped the lowest scores, in hash order and 0.0001 apart. Here
    they all have the lowest.
    """
    lowest = min(score for _, score in pieces)
    limit = lowest + _SCORE_STEP * sum(len(piece) == 1 for piece, _ in pieces)
    scores = {piece: round(lowest if len(piece) == 1 and score <= limit else score, _DECIMALS)
              for piece, score in pieces}
    return sorted(scores.items(), key=lambda one: (-one[1], one[0]))


# How a vocabulary is trained, by the name of its model.
TOKENIZER_MODELS: dict[str, Callable[[_Training], Tokenizer]] = {
    "wordpiece": _wordpiece, "bpe": _bpe, "unigram": _unigram}


def _unicode_normalizer(form: normalizers.Normalizer, training: _Training) -> normalizers.Normalizer:
    """A normal form of Unicode, in lower case or without accents if asked."""
    strip = training.lowercase if training.strip_accents is None else training.strip_accents
    lower = [normalizers.Lowercase()] if training.lowercase else []
    marks = [normalizers.NFD(), normalizers.StripAccents()] if strip else []
    return normalizers.Sequence([*marks, form, *lower])


def _with_special_tokens(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    set_special_tokens(tokenizer, {role: names[0] for role, names in ROLES.items()})
    return tokenizer


def _frequent_characters(texts: Iterable[str], normalizer: normalizers.Normalizer, coverage: float) -> Sequence[str]:
    """Returns the characters that should have an entry, the most frequent first."""
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    for blank in [c for c in counts if c.isspace()]:
        del counts[blank]
    if not counts:
        raise UserError("the texts to train a vocabulary on hold no text")
    ranked = sorted(counts, key=lambda c: (-counts[c], c))
    sums = list(accumulate(counts[c] for c in ranked))
    rarest = next(counts[c] for c, covered in zip(ranked, sums) if covered >= coverage * sums[-1])
    return [c for number, c in enumerate(ranked) if counts[c] >= rarest or number < _MIN_ALPHABET]


def _entries(character: str, normalizer: normalizers.Normalizer) -> list[str]:
    """Returns a character's entries: at the start of a word and inside, where ideographs, each a word, never are.

    Punctuation, also a word of its own, has both, as in BERT's vocabularies.
    """
    if normalizer.normalize_str(character) == f" {character} ":
        return [character]
    return [character, CONTINUATION_PREFIX + character]
