"""Networks that write, from transformers and to it: with what they are for, and compared on the way."""
from __future__ import annotations

import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.directories import require_absent_or_empty
from spanbert_jax.common.errors import RunFailed, UserError
from spanbert_jax.inference.model_folder import TASK_FILE, FineTuned, load_model, save_model
from spanbert_jax.interop.encoder_decoder import load_encoder_decoder
from spanbert_jax.interop.exporting import Comparison, on_cpu
from spanbert_jax.interop.formats.huggingface import LIBRARY, TOLERANCE, quiet
from spanbert_jax.interop.pretrained import load_tokenizer
from spanbert_jax.model import EncoderDecoder
from spanbert_jax.tasks import make_task, task_class
from spanbert_jax.tasks.protocol import Task
from spanbert_jax.tasks.seq2seq import Seq2SeqTask
from spanbert_jax.text.targets import TARGET_TOKENIZER_FOLDER, load_target_tokenizer

logger = logging.getLogger("spanbert_jax")
# transformers' fields of generation -> ours.
_GENERATION = {"min_new_tokens": "min_length", "num_beams": "beams", "length_penalty": "length_penalty",
               "early_stopping": "early_stopping", "no_repeat_ngram_size": "no_repeat_ngram", "do_sample": "sample",
               "temperature": "temperature", "top_k": "top_k", "top_p": "top_p"}
_DRAWING = ("temperature", "top_k", "top_p")
# Its fields that change what is written too and are not known here, with the values that change nothing.
_UNKNOWN = {"repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0,
            "num_beam_groups": 1, "diversity_penalty": 0.0, "penalty_alpha": 0.0, "typical_p": 1.0, "min_p": 0.0,
            "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "guidance_scale": 1.0, "bad_words_ids": [], "sequence_bias": {},
            "suppress_tokens": [], "begin_suppress_tokens": [], "forced_bos_token_id": None,
            "forced_eos_token_id": None, "force_words_ids": [], "exponential_decay_length_penalty": None,
            "stop_strings": []}
_LENGTH, _TOP_K = 20, 50  # what holds there where nothing is said


def adopt(path: pathlib.Path, out: str | pathlib.Path, name: str | None = None,
          tokenizer: str | None = None) -> tuple[FineTuned, Comparison]:
    """Writes the directory of an EncoderDecoderModel again, with its task beside it as fine-tuning writes it.

    Args:
      path: the directory.
      out: to be made.
      name: of the task, "summarization" or "translation"; not needed where the directory says it.
      tokenizer: where that of the sources lies, if not in the directory.

    Returns:
      The network, and how far its outputs are from those of transformers on the directory at `path`.

    Raises:
      UserError: when it cannot be read, or is not for that task.
      RunFailed: when transformers computes something else with it; then nothing is left.
    """
    require_absent_or_empty(out)
    out = pathlib.Path(out).expanduser()
    if tokenizer and (path / TASK_FILE).is_file():
        raise UserError(f"--tokenizer {tokenizer}: the network in {path} has its own; leave it out")
    fine_tuned = load_model(path) if (path / TASK_FILE).is_file() else _read(path, name, tokenizer or path)
    if name not in (None, fine_tuned.name):
        raise UserError(f"--task {name}: the network in {path} was trained for {fine_tuned.name}; leave it out")
    comparison = compare(path, fine_tuned.model, fine_tuned.params)
    save_model(out, fine_tuned)
    return fine_tuned, comparison


def _read(path: pathlib.Path, name: str | None, sources: str | pathlib.Path) -> FineTuned:
    """A network that was fine-tuned elsewhere; it writes as its files say, and reads by the tokenizer of `sources`."""
    if name is None or not issubclass(task_class(name), Seq2SeqTask):
        raise UserError(f"{path}: a network that writes; say what by --task summarization or translation")
    model, params = load_encoder_decoder(path)
    tokenizer, facts = load_tokenizer(sources), {}
    if (path / TARGET_TOKENIZER_FOLDER).is_dir() or (path / "merges.txt").is_file():
        facts["target_tokenizer"] = load_target_tokenizer(path).to_str()
    values, file = _generation_values(path)
    settings = settings_of(values, task_class(name).defaults(), file) | {"length": model.config.max_positions}
    if settings["target_length"] > model.decoder_config.max_positions:
        logger.warning("%s: %s pieces are to be written, and the decoder has %s positions: no more are written", file,
                       settings["target_length"], model.decoder_config.max_positions)
        settings["target_length"] = model.decoder_config.max_positions
    try:
        task = make_task(name, settings, facts)
    except UserError as error:
        raise UserError(f"{file}: it says what cannot be here ({error}); change it") from None
    _check_tokenizers(path, values, task, model, tokenizer)
    return FineTuned(name, task, model, params, tokenizer)


def _generation_values(path: pathlib.Path) -> tuple[dict[str, Any], pathlib.Path]:
    """What the files of a directory say of generation, by the rules of transformers, and the file that says it."""
    file = path / "generation_config.json"
    file = file if file.is_file() else path / "config.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        said = {name: value for name, value in values.items() if value is not None}
        return {**said.get("decoder", {}), **said}, file
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: not a JSON object ({error}); fetch it again") from None


def _check_tokenizers(path: pathlib.Path, values: Mapping[str, Any], task: Task, model: EncoderDecoder,
                      tokenizer: Tokenizer) -> None:
    """Raises UserError where the tokenizers are not those of a network."""
    target, written = task.target_tokenizer(tokenizer), task.generation(tokenizer)
    for part, config, pieces in (("encoder", model.config, tokenizer), ("decoder", model.decoder_config, target)):
        if pieces.get_vocab_size() > config.vocab_size:
            where = (f"; its own belongs into the folder {TARGET_TOKENIZER_FOLDER} there"
                     if pieces is tokenizer is target else "")
            raise UserError(f"{path}: the {part}'s tokenizer has {pieces.get_vocab_size():,} pieces and the {part} "
                            f"{config.vocab_size:,}; give the one that it was trained with{where}")
    for field, ours in (("decoder_start_token_id", written.start), ("eos_token_id", written.end)):
        if values.get(field, ours) not in (ours, [ours], None):
            raise UserError(f"{path}: {field} is {values[field]}, and {ours}, alone, by the tokenizer of what is "
                            f"written; if that is another's, put the right one into the folder "
                            f"{TARGET_TOKENIZER_FOLDER} there")


def settings_of(values: Mapping[str, Any], defaults: Mapping[str, Any], file: pathlib.Path) -> dict[str, Any]:
    """A task's settings by what transformers' configs say of generation. What cannot be so here is left out and told.

    Args:
      values: of generation_config.json, or of config.json where there is none.
      defaults: of the task; of what is not said, transformers' own defaults hold, which are those of one text a source.
    """
    values = {name: value for name, value in values.items() if value is not None}
    settings = {**defaults, "beams": 1, "no_repeat_ngram": 0}
    if values.get("do_sample"):
        settings["top_k"] = _TOP_K
    for name, neutral in _UNKNOWN.items():
        if values.get(name, neutral) != neutral:
            logger.warning("%s: %s=%r is left out: transformers writes something else by it", file, name, values[name])
    for name in ("max_new_tokens", "max_length", "min_length"):
        if type(values.get(name, 0)) is not int:
            raise UserError(f"{file}: {name} is {values[name]!r}; a whole number is needed")
    # A length counts the piece that begins a text there.
    settings["target_length"] = values.get("max_new_tokens", values.get("max_length", _LENGTH) - 1)
    settings["min_length"] = max(0, values.get("min_length", 0) - 1)
    for theirs, ours in _GENERATION.items():
        if theirs not in values or ours in _DRAWING and not values.get("do_sample"):
            continue
        value, kind = values[theirs], type(defaults[ours])
        if type(value) is not kind and not (kind is float and type(value) is int):
            logger.warning("%s: %s=%r is left out; %s stays %r", file, theirs, value, ours, settings[ours])
            continue
        settings[ours] = kind(value)
    return settings


def compare(path: pathlib.Path, model: EncoderDecoder, params: Any) -> Comparison:
    """Logits of the same texts by transformers on a directory and by the network here, in float32 on the CPU.

    Raises:
      RunFailed: when they differ by more than is allowed.
    """
    random = np.random.default_rng(0)
    lengths = [min(length, config.max_positions) for length, config in ((24, model.config), (16, model.decoder_config))]
    tokens, targets = (random.integers(0, config.vocab_size, (3, length)) for length, config in
                       zip(lengths, (model.config, model.decoder_config)))
    real = (np.arange(lengths[0]) < np.linspace(lengths[0], 3, 3).astype(int)[:, None]).astype(np.int64)
    try:
        theirs = _run(path, tokens, real, targets)
    except ImportError as error:
        return Comparison(LIBRARY, None, TOLERANCE, f"{error.name} is not installed")
    with on_cpu():
        ours = np.asarray(jax.jit(model.apply)({"params": params}, tokens, real, targets, np.ones_like(targets)))
    difference = float(np.max(np.abs(theirs - ours)) / max(1.0, np.max(np.abs(ours))))
    comparison = Comparison(f"{LIBRARY} on {path}", difference, TOLERANCE)
    if not difference <= TOLERANCE:  # NaN is no agreement either
        raise RunFailed(f"{comparison}; nothing is written: this is a fault of the program or of a version of "
                        f"{LIBRARY} that it does not know")
    return comparison


def _run(path: pathlib.Path, tokens: np.ndarray, real: np.ndarray, targets: np.ndarray) -> np.ndarray:
    import torch
    import transformers

    with quiet():
        network = transformers.EncoderDecoderModel.from_pretrained(path, dtype=torch.float32).eval()
    with torch.no_grad():
        outputs = network(input_ids=torch.from_numpy(tokens), attention_mask=torch.from_numpy(real),
                          decoder_input_ids=torch.from_numpy(targets))
    return outputs.logits.numpy()
