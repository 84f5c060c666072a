"""Target tokenizers of sequence-to-sequence models: BERT's, GPT-2's, and byte-level ones trained on the targets."""
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.paths import user_path
from spanbert_jax.text.special_tokens import SPECIAL_TOKENS, special_tokens
from spanbert_jax.text.tokenizer_files import load_tokenizer, read_json, read_vocab_and_merges
from spanbert_jax.text.tokenizer_training import MIN_VOCAB_SIZES
from spanbert_jax.text.words import is_byte_level

# Folder of the target tokenizer in the directory of a model whose encoder has another tokenizer.
TARGET_TOKENIZER_FOLDER = "target_tokenizer"
_GPT2_END = "<|endoftext|>"
MIN_TARGET_VOCAB_SIZE = MIN_VOCAB_SIZES["bpe"]


class TargetIds(NamedTuple):
    """Ids of the start, end and padding token, and of [UNK] if the tokenizer has one."""
    start: int
    end: int
    pad: int
    unknown: int | None


def target_ids(tokenizer: Tokenizer) -> TargetIds:
    """Returns the ids of the special tokens by role, or of GPT-2's, one for all. Raises UserError if it has neither."""
    ids = {role: tokenizer.token_to_id(token) for role, token in special_tokens(tokenizer).items()}
    if {"pad", "cls", "sep"} <= ids.keys():
        return TargetIds(ids["cls"], ids["sep"], ids["pad"], None if is_byte_level(tokenizer) else ids.get("unk"))
    if (end := tokenizer.token_to_id(_GPT2_END)) is None:
        raise UserError(f"the target tokenizer has neither [CLS], [SEP] and [PAD], by these or other names, nor "
                        f"{_GPT2_END}; give the tokenizer of a BERT or GPT-2 model")
    return TargetIds(end, end, end, None)


def train_target_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Trains a byte-level BPE tokenizer as in GPT-2. It can encode any text, and decoding restores the text exactly.

    `vocab_size` is at least `MIN_TARGET_VOCAB_SIZE`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False))
    return tokenizer


def load_target_tokenizer(path: str | pathlib.Path) -> Tokenizer:
    """Loads a target tokenizer. Raises UserError if there is none.

    `path` is a tokenizer.json, a BERT vocab.txt, or a directory with one of them or with GPT-2's vocab.json and
    merges.txt. In the directory of a model with a target tokenizer of its own, that one is loaded.
    """
    folder = user_path(path)
    if (folder / TARGET_TOKENIZER_FOLDER).is_dir():
        folder /= TARGET_TOKENIZER_FOLDER
    file = folder / "tokenizer.json" if folder.is_dir() else folder
    if file.suffix == ".json" and file.is_file():
        tokenizer = read_json(file)
        target_ids(tokenizer)
        if not isinstance(tokenizer.model, models.WordPiece):
            return tokenizer
    if not (folder / "merges.txt").is_file():  # next to BERT's tokenizer.json, merges.txt is of the target tokenizer
        return load_tokenizer(folder)
    tokenizer = read_vocab_and_merges(folder)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(_GPT2_END, special=True, normalized=False)])
    return tokenizer


