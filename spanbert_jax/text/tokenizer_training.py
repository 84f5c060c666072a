"""Training of WordPiece vocabularies."""
import collections
from collections.abc import Iterable, Sequence
from itertools import accumulate

from tokenizers import Tokenizer, models, normalizers, trainers

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.settings import require
from spanbert_jax.text.tokenizer import (
    CONTINUATION_PREFIX,
    SPECIAL_TOKENS,
    bert_normalizer,
    build_tokenizer,
    without_special_tokens,
)

MIN_VOCAB_SIZE, MAX_VOCAB_SIZE = 64, 2_000_000  # the library reserves memory for the whole size at once
CHARACTER_COVERAGE = 0.9995
_MIN_ALPHABET = 1000  # characters that are kept whatever the coverage, as long as there is room


def train_tokenizer(texts: Iterable[str], vocab_size: int, lowercase: bool = False, *,
                    strip_accents: bool | None = None, character_coverage: float = CHARACTER_COVERAGE) -> Tokenizer:
    """Trains a WordPiece vocabulary. The same texts always give the same vocabulary.

    The library numbers the characters inside words in hash order and breaks ties between merges by these numbers, so
    two runs would differ. Passing the alphabet in a fixed order avoids that. Raises UserError if there is no text, or
    an argument is out of its range.

    Args:
      texts: read twice; an iterator is first collected into a list.
      vocab_size: maximum size, 64 to 2,000,000, special tokens included. Special tokens come first, and [PAD] is 0.
      lowercase: lower-case the text.
      strip_accents: strip accents and other combining marks; None strips them if the text is lower-cased.
      character_coverage: share of the text's characters, white space aside, that get an entry of their own; a word
        with any other character is [UNK]. The most frequent come first, and equally frequent ones are treated alike.
        At least 1,000 characters get an entry. It is lower if `vocab_size` is too small.
    """
    require(MIN_VOCAB_SIZE <= vocab_size <= MAX_VOCAB_SIZE, "vocab_size", vocab_size,
            f"must be at least {MIN_VOCAB_SIZE} and at most {MAX_VOCAB_SIZE}")
    require(0 < character_coverage <= 1, "character_coverage", character_coverage, "must be above 0 and at most 1")
    texts = list(texts) if iter(texts) is texts else texts
    normalizer = bert_normalizer(lowercase, strip_accents)
    wanted = _frequent_characters(texts, normalizer, character_coverage)
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
