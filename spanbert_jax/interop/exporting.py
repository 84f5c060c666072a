"""Exports a model in a format, completely or not at all, and compares the export with it."""
import contextlib
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.directories import new_directory, require_absent_or_empty
from spanbert_jax.common.errors import RunFailed, UserError
from spanbert_jax.common.manifest import README_FILE, seal_folder
from spanbert_jax.common.paths import user_path
from spanbert_jax.interop import layout
from spanbert_jax.interop.formats import FORMATS, load_format
from spanbert_jax.interop.formats.model_card import model_card
from spanbert_jax.interop.tokenizer_check import check_tokenizer
from spanbert_jax.model import EncoderModel
from spanbert_jax.text import vocabulary_size

logger = logging.getLogger("spanbert_jax")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Comparison of the outputs of an exported model with the model's on the same inputs."""
    with_what: str  # the library that ran the exported model, and the files that it read
    difference: float | None  # the largest, relative to the largest output, or to 1 if that is more; None if not run
    allowed: float  # the largest allowed difference
    why_not: str = ""  # why it was not compared
    tokenizer: str = ""  # how the tokenizer was compared, if there is one

    def __str__(self) -> str:
        tokenizer = f"; {self.tokenizer}" if self.tokenizer else ""
        if self.difference is None:
            return f"not compared: {self.why_not}{tokenizer}"
        return (f"compared on the same inputs with {self.with_what}: largest difference {self.difference:.2g} of the "
                f"largest output, allowed {self.allowed:.2g}{tokenizer}")


def save_pretrained(model: EncoderModel, params: Any, directory: str | pathlib.Path, tokenizer: Any = None) -> None:
    """Writes a model as a directory of transformers, which `from_pretrained` reads back bit for bit.

    A `tokenizer`, of `load_tokenizer` or a fast one of transformers, is written with it. Raises UserError if
    `directory` is not empty, or cannot be written; nothing is left of it then.
    """
    export(model, params, directory, "huggingface", tokenizer, compare=False)


def export(model: EncoderModel, params: Any, out: str | pathlib.Path, format: str, tokenizer: Tokenizer | None = None,
           facts: dict[str, Any] | None = None, compare: bool = True, original: pathlib.Path | None = None,
           files: Mapping[str, bytes] | None = None) -> Comparison | None:
    """Exports a model into a new directory, with a model card and a manifest. Returns the comparison, with `compare`.

    Args:
      format: one of `FORMATS`; the exported model computes in float32.
      tokenizer: written with it.
      facts: about its training run, for the card, as in `Pretrained`.
      compare: run the exported model with the library that it is for, if that is installed, and read the tokenizer
        again.
      original: directory that the model was read from; compared with instead if the library can read it.
      files: further ones, by name.

    Raises:
      UserError: `out` is not empty, a package is missing, or the disk is full.
      RunFailed: the exported model computes something else, or its tokenizer gives other ids; nothing is left of it
        then.
    """
    if format not in FORMATS:
        raise UserError(f"format {format!r}: allowed are {', '.join(FORMATS)}")
    out = user_path(out)
    require_absent_or_empty(out)
    _check_finite(params)
    if unused := _unused(model, params):
        logger.warning("not written, because the model does not have these parameters: %s; give a model with their "
                       "heads to keep them", ", ".join(unused))
    tokenizer = getattr(tokenizer, "backend_tokenizer", tokenizer)  # transformers wraps the library's own
    if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
        raise UserError(f"tokenizer is of type {type(tokenizer).__name__}; give one of spanbert_jax.load_tokenizer, or "
                        "a fast one of transformers")
    if tokenizer is not None and vocabulary_size(tokenizer) > model.config.vocab_size:
        raise UserError(f"the tokenizer has {vocabulary_size(tokenizer):,} entries and the model "
                        f"{model.config.vocab_size:,}; give the tokenizer that it was trained with")
    writer, model = load_format(format), model.clone(compute=model.compute.replace(dtype="float32"))
    with new_directory(out) as folder:
        writer.write(folder, model, params, tokenizer)
        (folder / README_FILE).write_text(model_card(out.name, model, format, facts), encoding="utf-8")
        for name, contents in (files or {}).items():
            (folder / name).write_bytes(contents)
        seal_folder(folder)
        comparison = _compare(writer, folder, original, model, params) if compare else None
        if comparison is None or tokenizer is None:
            return comparison
        with_transformers = writer.LIBRARY == "transformers" and comparison.difference is not None
        return dataclasses.replace(
            comparison, tokenizer=check_tokenizer(folder, tokenizer, original, with_transformers))


def _check_finite(params: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not bool(jax.numpy.isfinite(leaf).all()):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise UserError(f"parameter {name} has numbers that are not finite, and could not be read back; "
                            "take an earlier checkpoint")


def _unused(model: EncoderModel, params: Any) -> list[str]:
    """The names of parameters that a model does not have; of a module that it does not have, the module's."""
    known = {"/".join(leaf.path) for leaf in layout.leaves(model)}
    modules = {name.split("/")[0] for name in known}
    given = {jax.tree_util.keystr(path, simple=True, separator="/")
             for path, _ in jax.tree_util.tree_leaves_with_path(nn.unbox(params))}
    return sorted({name if name.split("/")[0] in modules else name.split("/")[0] for name in given - known})


def _compare(writer: ModuleType, folder: pathlib.Path, original: pathlib.Path | None, model: EncoderModel,
             params: Any) -> Comparison:
    inputs = probe(model)
    with on_cpu():
        try:
            what, theirs = _run_either(writer, folder, original, model, inputs)
        except ImportError as error:
            return Comparison(writer.LIBRARY, None, writer.TOLERANCE, f"{error.name} is not installed")
        ours = outputs_of(model, params, inputs)
    difference = largest_difference(ours, theirs, inputs["attention_mask"] > 0)
    comparison = Comparison(f"{writer.LIBRARY} on {what}", difference, writer.TOLERANCE)
    if not difference <= writer.TOLERANCE:  # NaN is no agreement either
        raise RunFailed(f"{comparison}; the export is removed: this is a bug of spanbert-jax or of an untested "
                        f"version of {writer.LIBRARY}")
    return comparison


def _run_either(writer: ModuleType, folder: pathlib.Path, original: pathlib.Path | None, model: EncoderModel,
                inputs: dict[str, np.ndarray]) -> tuple[str, dict[str, np.ndarray]]:
    """Returns which model the library ran, the original if it can read it, else the export; and its outputs."""
    if original is not None:
        try:
            return str(original), writer.run(original, model, inputs)
        except ImportError:
            raise
        except Exception as error:  # the library's are of many kinds
            logger.warning("%s cannot read %s (%s); the export is compared instead", writer.LIBRARY, original,
                           " ".join(str(error).split())[:120])
    return "the export", writer.run(folder, model, inputs)


def on_cpu() -> contextlib.AbstractContextManager:
    """Computes on the CPU if JAX has one: accelerators round float32 products by default."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()


def probe(model: EncoderModel, rows: int = 3, length: int = 24) -> dict[str, np.ndarray]:
    """Test inputs: rows of different lengths with all token types of a model, int64 [B, S]."""
    length = min(length, model.config.max_positions)
    random, column = np.random.default_rng(0), np.arange(length)
    ends = np.linspace(length, max(1, length // 3), rows).astype(int)[:, None]
    # Not the first ids, one of which is padding: RoBERTa of transformers counts positions without it.
    return {"input_ids": random.integers(min(5, model.config.vocab_size - 1), model.config.vocab_size, (rows, length)),
            "attention_mask": (column < ends).astype(np.int64),
            "token_type_ids": (column >= ends // 2) % max(1, model.config.token_types) * np.ones((rows, 1), np.int64)}


def outputs_of(model: EncoderModel, params: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the outputs of a model by the names of `model.Outputs`."""
    outputs = _apply(model, params, inputs)
    return {name: np.asarray(value) for name, value in outputs._asdict().items() if value is not None}


@functools.partial(jax.jit, static_argnums=0)  # models that are equal are compiled once
def _apply(model: EncoderModel, params: Any, inputs: Any) -> Any:  # Outputs
    return model.apply({"params": params}, **inputs)


def largest_difference(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], real: np.ndarray) -> float:
    """Returns the largest difference of any output of an export, relative to its largest value or to 1 if more.

    `real` [B, S] is False at padding, whose outputs are unused and can have a hundred times the rounding error. Raises
    RunFailed if outputs differ in name or shape; transformers may lack the pooler's.
    """
    shapes = [{name: value.shape for name, value in outputs.items()} for outputs in (ours, theirs)]
    if not shapes[1].items() <= shapes[0].items() or shapes[0].keys() - shapes[1].keys() - {"pooler_output"}:
        raise RunFailed(f"the export gives {shapes[1]}, and the model {shapes[0]}; the export is removed")
    differences = []
    for name, value in theirs.items():
        places = real if value.shape[:2] == real.shape else ...
        scale = max(1.0, np.max(np.abs(ours[name][places])))
        differences.append(float(np.max(np.abs(value[places] - ours[name][places])) / scale))
    return max(differences)
