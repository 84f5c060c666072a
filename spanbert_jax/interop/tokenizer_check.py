"""Compares an exported tokenizer with the one that was exported, and with that of transformers."""
import logging
import pathlib
from collections.abc import Callable, Sequence

from tokenizers import Tokenizer

from spanbert_jax.common.errors import RunFailed
from spanbert_jax.text import load_tokenizer, special_tokens, spelling

logger = logging.getLogger("spanbert_jax")
_WORDS = 2_000
_TEXTS = ("The President of France isn't Émile Zola.", "東京都に住んでいる。", "서울은 हिन्दी ещё й", " two  spaces\n")
Encode = Callable[[Sequence[str]], list[list[int]]]  # from texts to their ids, with special tokens


def check_tokenizer(folder: pathlib.Path, tokenizer: Tokenizer, original: pathlib.Path | None,
                    with_transformers: bool) -> str:
    """Compares the ids of texts, and returns what was compared.

    Args:
      folder: the export.
      tokenizer: the tokenizer that was exported.
      original: the directory that the model was read from. A tokenizer of transformers that differs there is logged:
        this package deviates on purpose, as where a cased vocabulary is said to be lower-casing.
      with_transformers: whether to read `folder` and `original` with transformers, which is installed.

    Raises:
      RunFailed: the export gives other ids.
    """
    texts = _probe_texts(tokenizer)
    readers: dict[str, Encode] = {"this package": _encoder(load_tokenizer(folder))}
    if with_transformers:
        readers["transformers"] = _transformers_encoder(folder)
    for reader, encode in readers.items():
        if difference := _first_difference(texts, tokenizer, encode):
            raise RunFailed(f"the exported tokenizer, read by {reader}, differs: {difference}; the export is removed: "
                            "this is a bug of spanbert-jax")
    if with_transformers and original:
        _compare_original(original, tokenizer, texts)
    return f"tokenizer: equal ids of {len(texts):,} texts, read by {' and '.join(readers)}"


def _compare_original(original: pathlib.Path, tokenizer: Tokenizer, texts: Sequence[str]) -> None:
    """Logs if transformers' tokenizer of a model, if there is one, is another."""
    try:
        encode = _transformers_encoder(original)
    except Exception:  # of many kinds; without a tokenizer there, another was given
        return
    if difference := _first_difference(texts, tokenizer, encode):
        logger.warning("%s: transformers tokenizes in another way than this package: %s", original, difference)


def _probe_texts(tokenizer: Tokenizer) -> list[str]:
    """Returns texts of several scripts, special tokens, and entries of the vocabulary as words, also in capitals."""
    entries = tokenizer.get_vocab(with_added_tokens=True)
    chosen, spelled, special = sorted(entries)[::max(1, len(entries) // _WORDS)], spelling(tokenizer), special_tokens(
        tokenizer)
    words = [spelled.join([entries[entry]]) for entry in chosen]
    return [*_TEXTS, f"a {special['mask']} b{special['sep']}", *words, *(word.upper() for word in words)]


def _first_difference(texts: Sequence[str], ours: Tokenizer, theirs: Encode) -> str:
    """Returns the first text with other ids, in words; "" if there is none."""
    for text, expected, found in zip(texts, _encoder(ours)(texts), theirs(texts), strict=True):
        if expected != found:
            return f"{text!r} has the ids {found[:8]} there and {expected[:8]} here"
    return ""


def _encoder(tokenizer: Tokenizer) -> Encode:
    return lambda texts: [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def _transformers_encoder(folder: pathlib.Path) -> Encode:
    import transformers
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return lambda texts: tokenizer(list(texts))["input_ids"]
