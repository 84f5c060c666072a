"""Encoder-decoder models as directories of transformers' EncoderDecoderModel: BERT with BERT, or with GPT-2."""
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from spanbert_jax.common.directories import new_directory
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import usual_mode
from spanbert_jax.common.manifest import seal_folder
from spanbert_jax.generation.settings import GenerationSettings
from spanbert_jax.interop import configuration, layout, weights
from spanbert_jax.interop.architectures import bert, conversion_for, conversion_of, encoder_types, gpt2
from spanbert_jax.interop.formats.huggingface import special_values, write_json, write_tokenizer
from spanbert_jax.interop.naming import NamedTensors
from spanbert_jax.interop.pretrained import open_file
from spanbert_jax.interop.sources.location import PAIR, locate, weight_files
from spanbert_jax.interop.sources.tensors import Tensors
from spanbert_jax.model import ComputeConfig, Decoder, EncoderDecoder, EncoderModel, ModelConfig, merge_tied_params
from spanbert_jax.text.targets import TARGET_TOKENIZER_FOLDER, target_ids

_BRIDGE = "enc_to_dec_proj"
_PARTS = ("encoder", "decoder")
_DECODERS = ("bert", "gpt2")
_TIED = "tie_encoder_decoder"


def load_encoder_decoder(name_or_path: str | pathlib.Path,
                         dtype: str = "float32") -> tuple[EncoderDecoder, dict[str, Any]]:
    """Returns an encoder-decoder model, with activations of `dtype`, and its parameters.

    `name_or_path` is a directory of an EncoderDecoderModel, or its name on the Hugging Face hub. Raises UserError if a
    file or tensor, which the message names, is missing or invalid.
    """
    path = locate(name_or_path)
    values, file = _read_config(path, "an EncoderDecoderModel")
    if values["model_type"] != PAIR:
        raise UserError(f"{file}: model_type is {values['model_type']!r}; only {PAIR!r} can be read here")
    files: list[Tensors] = [open_file(name, bert.NAMES) for name in weight_files(path)]
    if values.get(_TIED):
        files = _with_both_names(files)
    conversion = conversion_for(values["encoder"], file)
    tensors = conversion.tensors(path, files, prefix="encoder.")
    encoder = conversion.read(tensors, values["encoder"], file).config
    decoder, decoder_tensors = _decoder(path, files, values["decoder"], file)
    decoder_tensors.check_ties()
    params = {"encoder": weights.load(EncoderModel(encoder), tensors, finish=jax.device_put)["encoder"],
              "decoder": weights.load(Decoder(decoder), decoder_tensors, finish=jax.device_put)}
    if encoder.width != decoder.width:
        params["bridge"] = jax.device_put(_bridge(path, files, encoder.width, decoder.width))
    return EncoderDecoder(encoder, decoder, compute=ComputeConfig(dtype=dtype)), params


@dataclasses.dataclass(frozen=True)
class _Aliased:
    """A file of tensors, some of which have a second name in `others` (see `sources.tensors.Tensors`)."""
    path: pathlib.Path
    shapes: Mapping[str, tuple[int, ...]]
    file: Tensors
    others: Mapping[str, str]

    def read(self, name: str) -> np.ndarray:
        return self.file.read(self.others.get(name, name))


def _with_both_names(files: Sequence[Tensors]) -> list[Tensors]:
    """Gives tied weights of encoder and decoder, which transformers stores once, both names."""
    names, found = {name for file in files for name in file.shapes}, list[Tensors]()
    for file in files:
        others: dict[str, str] = {}
        for one, other in (("encoder.", "decoder.bert."), ("decoder.bert.", "encoder.")):
            others |= {other + name.removeprefix(one): name for name in file.shapes if name.startswith(one)}
        others = {other: name for other, name in others.items() if other not in names}
        shapes = {**file.shapes, **{other: file.shapes[name] for other, name in others.items()}}
        found.append(_Aliased(file.path, shapes, file, others))
    return found


def _read_config(path: pathlib.Path, what: str) -> tuple[dict[str, Any], pathlib.Path]:
    """Returns a checked config.json and its path. `what` describes the expected model in errors."""
    file = path / "config.json"
    try:
        values = configuration.read_config_file(file)
        parts = [values[part]["model_type"] for part in _PARTS] if values["model_type"] == PAIR else None
    except FileNotFoundError:
        raise UserError(f"{path}: no config.json in it; give the directory of {what}") from None
    except KeyError as error:
        raise UserError(f"{file}: {error} is missing; give the directory of {what}") from None
    if parts and not (parts[0] in encoder_types() and parts[1] in _DECODERS):
        raise UserError(f"{file}: it is of {' with '.join(map(str, parts))}; {', '.join(encoder_types())} with "
                        f"{' or '.join(_DECODERS)} can be read")
    if parts:
        conversion_for(values["encoder"], file).check(values["encoder"], file)
    return values, file


def _decoder(path: pathlib.Path, files: list[Tensors], values: dict[str, Any],
             file: pathlib.Path) -> tuple[ModelConfig, NamedTensors]:
    conversion = conversion_for(values, file, decoder=True)
    conversion.check(values, file, decoder=True)
    tensors = conversion.tensors(path, files, prefix="decoder.")
    return conversion.read(tensors, values, file).config, tensors


def open_decoder(name_or_path: str | pathlib.Path,
                 memory_width: int) -> tuple[ModelConfig, NamedTensors, dict[str, Any] | None]:
    """Returns config and tensors of a stored decoder, and the projection from the encoder's width if it differs.

    `name_or_path` is a GPT-2, which has no attention to an encoder yet, or an EncoderDecoderModel; `memory_width` is
    the encoder's. Raises UserError if a file or tensor, which the message names, is missing or invalid.
    """
    path = locate(name_or_path)
    values, file = _read_config(path, "a GPT-2 or an EncoderDecoderModel")
    files, bridge = [open_file(name, bert.NAMES) for name in weight_files(path)], None
    if values["model_type"] != PAIR:
        gpt2.GPT2.check(values, file)
        tensors = gpt2.GPT2.tensors(path, files)
        config = gpt2.read(tensors, values, file).config
    else:
        config, tensors = _decoder(path, files, values["decoder"], file)
        if memory_width != config.width:
            bridge = _bridge(path, files, memory_width, config.width)
    tensors.check_ties()
    return config, tensors, bridge


def _bridge(path: pathlib.Path, files: list[Tensors], width: int, decoder_width: int) -> dict[str, Any]:
    found = {name.rpartition(".")[2]: file for file in files for name in file.shapes if name.startswith(f"{_BRIDGE}.")}
    if found.keys() != {"weight", "bias"}:
        raise UserError(f"{path}: the encoder is {width} wide and the decoder {decoder_width}, and {_BRIDGE} between "
                        "them is missing; the file is incomplete")
    weight, bias = (np.asarray(found[leaf].read(f"{_BRIDGE}.{leaf}"), np.float32) for leaf in ("weight", "bias"))
    if weight.shape != (decoder_width, width):
        raise UserError(f"{path}: {_BRIDGE}.weight is {list(weight.shape)}; {[decoder_width, width]} is needed")
    return {"kernel": weight.T, "bias": bias}


def save_encoder_decoder(model: EncoderDecoder, params: Any, directory: str | pathlib.Path,
                         settings: GenerationSettings, tokenizer: Tokenizer | None = None,
                         target_tokenizer: Tokenizer | None = None) -> None:
    """Writes an encoder-decoder model as a new directory of transformers' EncoderDecoderModel.

    Args:
      settings: generation settings, which become the defaults of transformers' `generate`.
      tokenizer: tokenizer of the sources.
      target_tokenizer: another tokenizer of the targets; written to `TARGET_TOKENIZER_FOLDER` in the directory.

    Raises:
      UserError: `directory` is not empty, or the disk is full.
    """
    params, decoder = merge_tied_params(nn.unbox(params)), model.decoder_config
    conversion = conversion_of(decoder)
    with new_directory(directory) as folder:
        with usual_mode(folder / "model.safetensors") as path:
            save_file(_tensors(model, params), path, {"format": "pt"})
        decoder_values = {"architectures": [conversion.classes["decoder"]], **conversion.to_values(decoder),
                          "is_decoder": True, "add_cross_attention": True, "tie_word_embeddings": True,
                          "pad_token_id": settings.pad}
        special = dict(decoder_start_token_id=settings.start, eos_token_id=settings.end, pad_token_id=settings.pad)
        write_json(folder / "config.json", {
            "architectures": ["EncoderDecoderModel"], "model_type": PAIR, "is_encoder_decoder": True,
            "encoder": configuration.to_values(EncoderModel(model.config)) | special_values(tokenizer, model.config),
            "decoder": decoder_values,
            _TIED: False, "torch_dtype": "float32", "vocab_size": decoder.vocab_size, **special})
        write_json(folder / "generation_config.json", special | _generation_values(settings))
        if tokenizer is not None:
            write_tokenizer(folder, tokenizer, model.config.max_positions, model.config.token_types > 0)
        if target_tokenizer is not None:
            _write_target_tokenizer(folder / TARGET_TOKENIZER_FOLDER, target_tokenizer, decoder.max_positions)
        seal_folder(folder)


def _write_target_tokenizer(folder: pathlib.Path, tokenizer: Tokenizer, length: int) -> None:
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = target_ids(tokenizer)
    start, end, pad = (tokenizer.id_to_token(id) for id in ids[:3])
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": length, "clean_up_tokenization_spaces": False,
        "bos_token": start, "eos_token": end, "pad_token": pad,
        **({} if ids.unknown is None else {"unk_token": tokenizer.id_to_token(ids.unknown)})})


def _generation_values(settings: GenerationSettings) -> dict[str, Any]:
    """Returns a generation_config.json without unused fields, about which transformers warns."""
    values: dict[str, Any] = dict(max_new_tokens=settings.max_length, min_new_tokens=settings.min_length,
                                  num_beams=settings.beams, no_repeat_ngram_size=settings.no_repeat_ngram,
                                  do_sample=settings.sample)
    if settings.beams > 1:
        values |= dict(length_penalty=settings.length_penalty, early_stopping=settings.early_stopping)
    if settings.sample:
        values |= dict(temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p)
    return values


def _tensors(model: EncoderDecoder, params: Any) -> dict[str, np.ndarray]:
    encoder, conversion = EncoderModel(model.config), conversion_of(model.config)
    found = {f"encoder.{name.removeprefix(conversion.names.prefix)}": value
             for name, value in conversion.export(layout.tensors(encoder, {"encoder": params["encoder"]}))}
    if "pooler" in conversion.names.modules:  # unused here; transformers warns if the encoder's is missing
        width = model.config.width
        found |= {"encoder.pooler.dense.weight": np.zeros((width, width), np.float32),
                  "encoder.pooler.dense.bias": np.zeros(width, np.float32)}
    decoder = layout.tensors(Decoder(model.decoder_config), params["decoder"])
    found |= {f"decoder.{name}": value for name, value in conversion_of(model.decoder_config).export(decoder)}
    if "bridge" in params:
        found |= {f"{_BRIDGE}.weight": np.ascontiguousarray(np.asarray(params["bridge"]["kernel"], np.float32).T),
                  f"{_BRIDGE}.bias": np.asarray(params["bridge"]["bias"], np.float32)}
    return found
