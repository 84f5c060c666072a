"""Tokenizers of what is written: BERT's, GPT-2's, and byte-level ones that are trained on the targets."""
from __future__ import annotations

import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from spanbert_jax.common.errors import UserError
from spanbert_jax.text.tokenizer import MIN_VOCAB_SIZE, SPECIAL_TOKENS, load_tokenizer

# Where it lies in the directory of a network that reads by another.
TARGET_TOKENIZER_FOLDER = "target_tokenizer"
_GPT2_END = "<|endoftext|>"
MIN_TARGET_VOCAB_SIZE = 256 + MIN_VOCAB_SIZE  # bytes, and what is not one


class TargetIds(NamedTuple):
    """Ids of the pieces that a text begins and ends with, of what fills up a row, and of [UNK] where there is one."""
    start: int
    end: int
    pad: int
    unknown: int | None


def target_ids(tokenizer: Tokenizer) -> TargetIds:
    """[CLS], [SEP], [PAD] and [UNK] of a tokenizer; GPT-2 has one piece for all but the last.

    Raises:
      UserError: when it has neither.
    """
    pad, unknown, start, end = (tokenizer.token_to_id(piece) for piece in SPECIAL_TOKENS[:4])
    if None not in (pad, start, end):
        return TargetIds(start, end, pad, unknown if isinstance(tokenizer.model, models.WordPiece) else None)
    if (end := tokenizer.token_to_id(_GPT2_END)) is None:
        raise UserError(f"the target tokenizer has neither [CLS], [SEP] and [PAD] nor {_GPT2_END}; give that of a BERT "
                        "or of a GPT-2")
    return TargetIds(end, end, end, None)


def train_target_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Trains byte-level pieces, by byte-pair encoding as in GPT-2: any text can be written, and comes back as it was.

    Args:
      vocab_size: at least `MIN_TARGET_VOCAB_SIZE`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False))
    return tokenizer


def load_target_tokenizer(path: str | pathlib.Path) -> Tokenizer:
    """The tokenizer in a file or directory: tokenizer.json, BERT's vocab.txt, or GPT-2's vocab.json and merges.txt; in
    the directory of a network that writes with a tokenizer of its own, that one.

    Raises:
      UserError: when there is none.
    """
    folder = pathlib.Path(path).expanduser()
    if (folder / TARGET_TOKENIZER_FOLDER).is_dir():
        folder /= TARGET_TOKENIZER_FOLDER
    file = folder / "tokenizer.json" if folder.is_dir() else folder
    own = _load_json(file) if file.suffix == ".json" and file.is_file() else None
    if own is not None and not isinstance(own.model, models.WordPiece):
        return own
    if not (folder / "merges.txt").is_file():  # beside BERT's tokenizer.json it is that of what is written
        return load_tokenizer(folder)
    try:
        model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    except Exception as error:  # the library raises no narrower one
        raise UserError(f"{folder}: vocab.json and merges.txt are not those of a GPT-2 ({error})") from None
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(_GPT2_END, special=True, normalized=False)])
    return tokenizer


def _load_json(file: pathlib.Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises no narrower one
        raise UserError(f"{file}: not a tokenizer ({error})") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    target_ids(tokenizer)
    return tokenizer
