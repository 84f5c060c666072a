"""Directories of transformers: config.json, model.safetensors and a fast tokenizer.

The boundary head, for which transformers has no class, is in a separate file that transformers ignores.
"""
import contextlib
import inspect
import json
import logging
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import ByteLevel

from spanbert_jax.common.files import usual_mode
from spanbert_jax.interop import layout
from spanbert_jax.interop.architectures import conversion_of
from spanbert_jax.interop.configuration import to_values, transformers_class
from spanbert_jax.interop.pretrained import BOUNDARY_FILE
from spanbert_jax.model import EncoderModel, ModelConfig
from spanbert_jax.model.heads import POOLED
from spanbert_jax.text import (
    ADDED_TOKEN_FLAGS,
    is_byte_level,
    is_lowercasing,
    special_ids,
    special_tokens,
    vocabulary_size,
    with_one_token_type,
)

logger = logging.getLogger("spanbert_jax")
LIBRARY = "transformers"
TOLERANCE = 2e-5
# Names of transformers' outputs that differ from those of `Outputs`.
_OUTPUTS = {"prediction_logits": "logits", "seq_relationship_logits": "next_sentence_logits"}


def write(folder: pathlib.Path, model: EncoderModel, params: Any, tokenizer: Tokenizer | None) -> None:
    """Writes the directory."""
    boundary_names = {name for leaf in layout.leaves(model) if leaf.module == "boundary_head" for name in leaf.names}
    conversion = conversion_of(model.config)
    prefix = "" if model.head.name else conversion.names.prefix
    tensors = {name.removeprefix(prefix): value for name, value in conversion.export(layout.tensors(model, params))}
    boundary = {name: tensors.pop(name) for name in boundary_names}
    with usual_mode(folder / "model.safetensors") as path:
        save_file(tensors, path, {"format": "pt"})
    if boundary:
        with usual_mode(folder / BOUNDARY_FILE) as path:
            save_file(boundary, path, {"format": "pt"})
    write_config_and_tokenizer(folder, model, tokenizer, with_types=model.config.token_types > 0)


def write_config_and_tokenizer(folder: pathlib.Path, model: EncoderModel, tokenizer: Tokenizer | None,
                               with_types: bool = True) -> None:
    """Writes config.json, and the files of the tokenizer if there is one; for `with_types` see `write_tokenizer`."""
    write_json(folder / "config.json", to_values(model) | special_values(tokenizer, model.config))
    if tokenizer is not None:
        tokenizer = with_one_token_type(tokenizer) if model.config.token_types < 2 else tokenizer
        write_tokenizer(folder, tokenizer, model.config.max_positions, with_types)


def special_values(tokenizer: Tokenizer | None, config: ModelConfig) -> dict[str, int]:
    """Returns the fields of config.json with the ids of special tokens, such as padding, whose row of the embedding
    transformers does not train.

    Where an architecture counts positions from the id of its padding token, it stays that. A tokenizer with another
    token of this id is logged, unless no text has that token.
    """
    if tokenizer is None:
        return {}
    ids = special_ids(tokenizer)
    pad = conversion_of(config).required.get("pad_token_id", ids.pad)
    if pad != ids.pad and not (pad == ids.unk and is_byte_level(tokenizer)):
        logger.warning("transformers counts the positions of %s from the tokens whose id is not %s, which is %r here "
                       "and not padding: texts with it get other positions there; use a tokenizer with <pad> at %s",
                       config.architecture, pad, tokenizer.id_to_token(pad), pad)
    if config.architecture == "bert":
        return {"pad_token_id": pad}
    return {"pad_token_id": pad, "bos_token_id": ids.cls, "eos_token_id": ids.sep, "cls_token_id": ids.cls,
            "sep_token_id": ids.sep}


def write_tokenizer(folder: pathlib.Path, tokenizer: Tokenizer, length: int, with_types: bool = True) -> None:
    """Writes a tokenizer for transformers and, if it is BERT's, for the reference.

    Args:
      length: largest number of tokens of the model.
      with_types: whether the model has token types as an input in transformers.
    """
    tokenizer.save(str(folder / "tokenizer.json"))
    if isinstance(tokenizer.model, WordPiece):
        _write_vocabulary(folder, tokenizer)
    added, special = tokenizer.get_added_tokens_decoder(), special_tokens(tokenizer)
    names: dict[str, Any] = {f"{role}_token": token for role, token in special.items()}
    if own := [token.content for token in added.values() if token.special and token.content not in special.values()]:
        names["additional_special_tokens"] = own
    write_json(folder / "special_tokens_map.json", names)
    values: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": is_lowercasing(tokenizer)}
    normalizer = tokenizer.normalizer
    # BERT's class would replace another normalizer by its own.
    if isinstance(normalizer, BertNormalizer) and isinstance(tokenizer.model, WordPiece):
        values = {"tokenizer_class": "BertTokenizer", "do_lower_case": normalizer.lowercase,
                  "strip_accents": normalizer.strip_accents, "tokenize_chinese_chars": normalizer.handle_chinese_chars}
    if isinstance(words := tokenizer.pre_tokenizer, ByteLevel):
        values["add_prefix_space"] = words.add_prefix_space
    if not with_types:
        values["model_input_names"] = ["input_ids", "attention_mask"]
    tokens = {str(number): {name: getattr(token, name) for name in ("content", *ADDED_TOKEN_FLAGS)}
              for number, token in added.items()}
    write_json(folder / "tokenizer_config.json", values | {"model_max_length": length, "added_tokens_decoder": tokens,
                                                           **names})


def _write_vocabulary(folder: pathlib.Path, tokenizer: Tokenizer) -> None:
    """Writes vocab.txt, one token a line, on the line of its id.

    An id without a token gets the last token, as if it were repeated: of repeated tokens the last line counts.
    """
    tokens = {number: token for token, number in tokenizer.get_vocab(with_added_tokens=True).items()}
    last = tokens[max(tokens)]
    lines = [tokens.get(number, last) for number in range(vocabulary_size(tokenizer))]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in lines), encoding="utf-8")


def write_json(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON file for people to read."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences transformers, except for errors."""
    import transformers
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        transformers.logging.enable_progress_bar()


def run(folder: pathlib.Path, model: EncoderModel, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the outputs of transformers, in float32 on the CPU. Raises ValueError if it misses a tensor."""
    import torch
    import transformers
    architecture = getattr(transformers, transformers_class(model))
    with quiet():
        torch_model, loading = architecture.from_pretrained(
            folder, output_loading_info=True, dtype=torch.float32,
            **{"add_pooling_layer": POOLED in model.head.inputs}
            if "add_pooling_layer" in inspect.signature(architecture).parameters else {})
    if loading["missing_keys"]:
        raise ValueError(f"transformers misses {', '.join(sorted(loading['missing_keys'])[:3])}")
    hidden: list[Any] = []
    torch_model.base_model.register_forward_hook(lambda module, inputs, outputs: hidden.append(outputs[0]))
    names = [name for name in inputs if name != "token_type_ids" or model.config.token_types]
    with torch.no_grad():
        outputs = torch_model.eval()(**{name: torch.from_numpy(inputs[name]) for name in names})
    values = {_OUTPUTS.get(name, name): value.numpy() for name, value in outputs.items() if value is not None}
    return values | {"last_hidden_state": hidden[0].numpy()}
