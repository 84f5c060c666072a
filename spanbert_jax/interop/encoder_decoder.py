"""Encoders with decoders, as directories of transformers' EncoderDecoderModel: BERT with BERT, or with GPT-2."""
from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from spanbert_jax.errors import UserError
from spanbert_jax.interop import configuration, gpt2, layout, weights
from spanbert_jax.interop.formats.huggingface import write_json, write_tokenizer
from spanbert_jax.interop.naming import NamedTensors
from spanbert_jax.interop.output import new_directory
from spanbert_jax.interop.pretrained import open_file
from spanbert_jax.interop.sources.location import locate, weight_files
from spanbert_jax.interop.sources.tensors import Tensors
from spanbert_jax.model import Decoder, DecoderConfig, EncoderDecoder, EncoderModel, complete
from spanbert_jax.text.targets import TARGET_FOLDER

_BRIDGE = "enc_to_dec_proj"
# What generation is to begin and end with, and to fill up with.
_SPECIAL = ("decoder_start_token_id", "eos_token_id", "pad_token_id")


def load_encoder_decoder(name_or_path: str | pathlib.Path,
                         dtype: str = "float32") -> tuple[EncoderDecoder, dict[str, Any]]:
    """A network that writes with its weights, as `model, params`.

    Args:
      name_or_path: a directory of an EncoderDecoderModel, or its name on the Hugging Face hub.
      dtype: of the computation.

    Raises:
      UserError: in one line, naming file and tensor.
    """
    path = locate(name_or_path)
    values, file = _read_config(path)
    files = [open_file(name) for name in weight_files(path)]
    tensors = NamedTensors(path, files, prefix="encoder.")
    encoder = dataclasses.replace(configuration.network(tensors, values["encoder"], file, dtype), pooler=False)
    decoder, decoder_tensors = _decoder(path, files, values["decoder"], file, encoder.width, dtype)
    decoder_tensors.check_ties()
    params = {"encoder": weights.load(EncoderModel(encoder), tensors, finish=jax.device_put)["encoder"],
              "decoder": weights.load(Decoder(decoder), decoder_tensors, finish=jax.device_put)}
    if encoder.width != decoder.width:
        params["bridge"] = jax.device_put(_bridge(path, files, encoder.width, decoder.width))
    return EncoderDecoder(encoder, decoder), params


def _read_config(path: pathlib.Path) -> tuple[dict[str, Any], pathlib.Path]:
    file = path / "config.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        kinds = values["model_type"], values["encoder"]["model_type"], values["decoder"]["model_type"]
    except FileNotFoundError:
        raise UserError(f"{path}: no config.json in it; give the directory of an EncoderDecoderModel") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{file}: not the config of an EncoderDecoderModel ({error!r:.80})") from None
    if kinds not in ((configuration.PAIR, "bert", "bert"), (configuration.PAIR, "bert", "gpt2")):
        raise UserError(f"{file}: it is of {' with '.join(map(str, kinds[1:]))}; a BERT with a BERT or a GPT-2 can be "
                        "read")
    return values, file


def _decoder(path: pathlib.Path, files: list[Tensors], values: dict[str, Any], file: pathlib.Path, memory_width: int,
             dtype: str) -> tuple[DecoderConfig, NamedTensors]:
    if values["model_type"] == "gpt2":
        tensors = NamedTensors(path, files, prefix="decoder.", rename=gpt2.rename)
        return gpt2.decoder_config(tensors.shapes, values, file, memory_width, dtype), tensors
    tensors = NamedTensors(path, files, prefix="decoder.")
    network = configuration.network(tensors, values, file, dtype)
    return decoder_of(network, memory_width), tensors


def open_decoder(name_or_path: str | pathlib.Path, memory_width: int,
                 dtype: str) -> tuple[DecoderConfig, NamedTensors, dict[str, Any] | None]:
    """A decoder, its tensors and the projection before it: of a GPT-2, whose attention to an encoder is not there yet,
    or of an EncoderDecoderModel.

    Raises:
      UserError: naming file and tensor.
    """
    path = locate(name_or_path)
    try:
        values = json.loads((path / "config.json").read_text(encoding="utf-8"))
        kind = values["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path / 'config.json'}: not the config of a GPT-2 or of an EncoderDecoderModel "
                        f"({error!r:.80}); give the directory of one") from None
    files = [open_file(name) for name in weight_files(path)]
    if kind != configuration.PAIR:
        tensors = NamedTensors(path, files, rename=gpt2.rename)
        return gpt2.decoder_config(tensors.shapes, values, path / "config.json", memory_width, dtype), tensors, None
    values, file = _read_config(path)
    config, tensors = _decoder(path, files, values["decoder"], file, memory_width, dtype)
    return config, tensors, _bridge(path, files, memory_width, config.width) if memory_width != config.width else None


def decoder_of(network: Any, memory_width: int) -> DecoderConfig:
    """The decoder that is made of an encoder's blocks."""
    fields = {field.name: getattr(network, field.name) for field in dataclasses.fields(network)}
    fields |= dict(boundary_head=False, next_sentence_head=False, pooler=False)
    return DecoderConfig(**fields, kind="bert", memory_width=memory_width)


def _bridge(path: pathlib.Path, files: list[Tensors], width: int, decoder_width: int) -> dict[str, Any]:
    found = {name.rpartition(".")[2]: file for file in files for name in file.shapes if name.startswith(f"{_BRIDGE}.")}
    if found.keys() != {"weight", "bias"}:
        raise UserError(f"{path}: the encoder is {width} wide and the decoder {decoder_width}, and {_BRIDGE} between "
                        "them is missing; the file is not whole")
    weight, bias = (np.asarray(found[leaf].read(f"{_BRIDGE}.{leaf}"), np.float32) for leaf in ("weight", "bias"))
    if weight.shape != (decoder_width, width):
        raise UserError(f"{path}: {_BRIDGE}.weight is {list(weight.shape)}; {[decoder_width, width]} is needed")
    return {"kernel": weight.T, "bias": bias}


def save_encoder_decoder(model: EncoderDecoder, params: Any, directory: str | pathlib.Path, *, start: int, end: int,
                         pad: int, tokenizer: Tokenizer | None = None,
                         target_tokenizer: Tokenizer | None = None) -> None:
    """Writes a network that writes as a directory of transformers' EncoderDecoderModel.

    Args:
      directory: to be made.
      start, end, pad: ids of the target's pieces that texts begin and end with, and that they are filled up with.
      tokenizer: of the sources; lies in the directory.
      target_tokenizer: of what is written, where that is another; lies in `TARGET_FOLDER` there.

    Raises:
      UserError: when something is there, or the disk does not take it.
    """
    params = complete(nn.unbox(params))
    decoder = model.decoder_config
    with new_directory(pathlib.Path(directory).expanduser()) as folder:
        save_file(_tensors(model, params), folder / "model.safetensors", {"format": "pt"})
        if decoder.kind == "gpt2":
            decoder_values = gpt2.to_values(decoder)
        else:
            decoder_values = configuration.to_values(EncoderModel(decoder, "masked_lm"))
            decoder_values |= {"architectures": ["BertLMHeadModel"], "is_decoder": True, "add_cross_attention": True}
        special = dict(zip(_SPECIAL, (start, end, pad)))
        write_json(folder / "config.json", {
            "architectures": ["EncoderDecoderModel"], "model_type": configuration.PAIR, "is_encoder_decoder": True,
            "encoder": configuration.to_values(EncoderModel(model.config)), "decoder": decoder_values,
            "tie_encoder_decoder": False, "torch_dtype": "float32", "vocab_size": decoder.vocab_size, **special})
        write_json(folder / "generation_config.json", special)
        if tokenizer is not None:
            write_tokenizer(folder, tokenizer, model.config.max_positions)
        if target_tokenizer is not None:
            (folder / TARGET_FOLDER).mkdir()
            target_tokenizer.save(str(folder / TARGET_FOLDER / "tokenizer.json"))


def _tensors(model: EncoderDecoder, params: Any) -> dict[str, np.ndarray]:
    encoder = EncoderModel(model.config)
    found = {f"encoder.{name.removeprefix('bert.')}": value
             for name, value in layout.tensors(encoder, {"encoder": params["encoder"]})}
    # transformers' encoder has a pooler that nobody reads here; without it, it would say that one has to be trained.
    width = model.config.width
    found |= {"encoder.pooler.dense.weight": np.zeros((width, width), np.float32),
              "encoder.pooler.dense.bias": np.zeros(width, np.float32)}
    decoder = layout.tensors(Decoder(model.decoder_config), params["decoder"])
    if model.decoder_config.kind == "gpt2":
        found |= {f"decoder.transformer.{name}": value for name, value in gpt2.tensors(decoder).items()}
    else:
        found |= {f"decoder.{name}": value for name, value in decoder}
    if "bridge" in params:
        found |= {f"{_BRIDGE}.weight": np.ascontiguousarray(np.asarray(params["bridge"]["kernel"], np.float32).T),
                  f"{_BRIDGE}.bias": np.asarray(params["bridge"]["bias"], np.float32)}
    return found
