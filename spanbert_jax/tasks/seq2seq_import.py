"""Encoder-decoder models fine-tuned with transformers, as tasks: their settings of generation and tokenizers."""
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.settings import from_dict, to_dict
from spanbert_jax.interop.configuration import read_config_file
from spanbert_jax.interop.encoder_decoder import load_encoder_decoder
from spanbert_jax.interop.pretrained import load_tokenizer
from spanbert_jax.model import EncoderDecoder
from spanbert_jax.text import vocabulary_size
from spanbert_jax.text.targets import TARGET_TOKENIZER_FOLDER, load_target_tokenizer

logger = logging.getLogger("spanbert_jax")
# Fields of transformers' generation config -> ours.
_GENERATION = {"min_new_tokens": "min_length", "num_beams": "beams", "length_penalty": "length_penalty",
               "early_stopping": "early_stopping", "no_repeat_ngram_size": "no_repeat_ngram", "do_sample": "sample",
               "temperature": "temperature", "top_k": "top_k", "top_p": "top_p"}
_SAMPLING = ("temperature", "top_k", "top_p")
# Its fields that change the generated text and have no counterpart here, with the values that change nothing.
_UNSUPPORTED = {"repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0,
                "num_beam_groups": 1, "diversity_penalty": 0.0, "penalty_alpha": 0.0, "typical_p": 1.0, "min_p": 0.0,
                "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "guidance_scale": 1.0, "bad_words_ids": [],
                "sequence_bias": {}, "suppress_tokens": [], "begin_suppress_tokens": [], "forced_bos_token_id": None,
                "forced_eos_token_id": None, "force_words_ids": [], "exponential_decay_length_penalty": None,
                "stop_strings": []}
_LENGTH, _TOP_K = 20, 50  # defaults of transformers


def import_model(cls: type[Any], folder: pathlib.Path,
                 source_tokenizer: str | pathlib.Path) -> tuple[Any, EncoderDecoder, Any, Tokenizer]:
    """Task, model, parameters and source tokenizer from the directory of an EncoderDecoderModel.

    Args:
      cls: the task to make, a `Seq2SeqTask`.
      source_tokenizer: file or directory with the tokenizer of the sources.

    Raises:
      UserError: a file is wrong or missing, or the tokenizers do not belong to the model.
    """
    model, params = load_encoder_decoder(folder)
    tokenizer, fitted = load_tokenizer(source_tokenizer), cls.Fitted()
    if (folder / TARGET_TOKENIZER_FOLDER).is_dir() or (folder / "merges.txt").is_file():
        fitted = cls.Fitted(target_tokenizer=load_target_tokenizer(folder).to_str())
    values, file = _generation_values(folder)
    settings = generation_settings(values, to_dict(cls.Settings()), file) | {"length": model.config.max_positions}
    if settings["target_length"] > model.decoder_config.max_positions:
        logger.warning("%s: at most %s tokens are generated instead of %s: the decoder has no more positions", file,
                       model.decoder_config.max_positions, settings["target_length"])
        settings["target_length"] = model.decoder_config.max_positions
    try:
        task = cls(from_dict(cls.Settings, settings, "config.task"), fitted)
    except UserError as error:
        raise UserError(f"{file}: unsupported value ({error}); change it") from None
    _check_tokenizers(folder, values, task, model, tokenizer)
    return task, model, params, tokenizer


def _generation_values(folder: pathlib.Path) -> tuple[dict[str, Any], pathlib.Path]:
    """The generation config of a directory, by the rules of transformers, and the file it comes from."""
    file = folder / "generation_config.json"
    file = file if file.is_file() else folder / "config.json"
    values = read_config_file(file)
    given = {name: value for name, value in values.items() if value is not None}
    return {**given.get("decoder", {}), **given}, file


def _check_tokenizers(folder: pathlib.Path, values: Mapping[str, Any], task: Any, model: EncoderDecoder,
                      tokenizer: Tokenizer) -> None:
    """Raises UserError if the tokenizers do not belong to the model."""
    target, generation = task.target_tokenizer(tokenizer), task.generation(tokenizer)
    for part, config, own in (("encoder", model.config, tokenizer), ("decoder", model.decoder_config, target)):
        if vocabulary_size(own) > config.vocab_size:
            own_needed = own is tokenizer is target
            hint = f"; put its own into the folder {TARGET_TOKENIZER_FOLDER} there" if own_needed else ""
            raise UserError(f"{folder}: the {part}'s tokenizer has {vocabulary_size(own):,} tokens and the {part} "
                            f"{config.vocab_size:,}; give the tokenizer it was trained with{hint}")
    for field, ours in (("decoder_start_token_id", generation.start), ("eos_token_id", generation.end)):
        if values.get(field, ours) not in (ours, [ours], None):
            raise UserError(f"{folder}: {field} is {values[field]}, but the target tokenizer's is {ours}; if that is "
                            "the tokenizer of another model, put the right one into the folder "
                            f"{TARGET_TOKENIZER_FOLDER} there")


def generation_settings(values: Mapping[str, Any], defaults: Mapping[str, Any], file: pathlib.Path) -> dict[str, Any]:
    """A task's settings from a generation config of transformers. Unsupported fields are left out with a warning.

    Args:
      values: of generation_config.json, or of config.json without one.
      defaults: of the task; for fields of generation that `values` lacks, transformers' own defaults are used.
      file: of the values, for messages.
    """
    values = {name: value for name, value in values.items() if value is not None}
    settings = {**defaults, "beams": 1, "no_repeat_ngram": 0}
    if values.get("do_sample"):
        settings["top_k"] = _TOP_K
    for name, neutral in _UNSUPPORTED.items():
        if values.get(name, neutral) != neutral:
            logger.warning("%s: %s=%r is ignored: not supported here, so transformers generates other texts", file,
                           name, values[name])
    for name in ("max_new_tokens", "max_length", "min_length"):
        if type(values.get(name, 0)) is not int:
            raise UserError(f"{file}: {name} is {values[name]!r}; it must be an integer")
    # Lengths of transformers include the start token.
    settings["target_length"] = values.get("max_new_tokens", values.get("max_length", _LENGTH) - 1)
    settings["min_length"] = max(0, values.get("min_length", 0) - 1)
    for theirs, ours in _GENERATION.items():
        if theirs not in values or (ours in _SAMPLING and not values.get("do_sample")):
            continue
        value, kind = values[theirs], type(defaults[ours])
        if type(value) is not kind and not (kind is float and type(value) is int):
            logger.warning("%s: %s=%r is ignored: not supported here; %s stays %r", file, theirs, value, ours,
                           settings[ours])
            continue
        settings[ours] = kind(value)
    return settings
