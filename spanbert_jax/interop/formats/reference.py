"""The layout of the released SpanBERT: config.json, vocab.txt and a pytorch_model.bin that PyTorch 1.2 reads.

Layer norms have gamma and beta, output layers repeat the token embedding, the boundary head has the original's names.
"""
import pathlib
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop import layout
from spanbert_jax.interop.architectures import conversion_of
from spanbert_jax.interop.exporting import outputs_of
from spanbert_jax.interop.formats.huggingface import write_config_and_tokenizer
from spanbert_jax.interop.pretrained import from_pretrained
from spanbert_jax.interop.sources.torch_file import TorchFile
from spanbert_jax.model import EncoderModel

LIBRARY = "torch"
_WEIGHTS = "pytorch_model.bin"
TOLERANCE = 0.0  # PyTorch reads back the same numbers
_NORM_LEAVES = {"weight": "gamma", "bias": "beta"}


def write(folder: pathlib.Path, model: EncoderModel, params: Any, tokenizer: Tokenizer | None) -> None:
    """Writes the directory. Raises UserError if PyTorch is not installed, or the model is not a BERT."""
    if (architecture := model.config.architecture) != "bert":
        raise UserError(f"format 'reference': the original code reads BERT only, and this is a {architecture}; export "
                        "as huggingface")
    try:
        import torch
    except ImportError:
        raise UserError("the reference's format is PyTorch's: pip install torch, or export as huggingface") from None
    tensors = {_name(name): torch.tensor(value) for name, value in layout.tensors(model, params)}
    embedding = tensors[conversion_of(model.config).names.embedding]
    for head in ("cls.predictions", "cls.pair_target_predictions"):
        if f"{head}.bias" in tensors:
            tensors[f"{head}.decoder.weight"] = embedding
    # The original runs on versions of PyTorch that cannot read the newer kind of file.
    torch.save(tensors, folder / _WEIGHTS, _use_new_zipfile_serialization=False)
    write_config_and_tokenizer(folder, model, tokenizer)


def _name(name: str) -> str:
    module, leaf = name.rsplit(".", 1)
    if "norm" in module.rsplit(".", 1)[-1].lower():  # LayerNorm, layer_norm1, layer_norm2
        return f"{module}.{_NORM_LEAVES[leaf]}"
    return name


def run(folder: pathlib.Path, model: EncoderModel, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns our outputs with the weights that PyTorch reads, since the original can no longer be installed.

    Raises ValueError if PyTorch reads other numbers than we do.
    """
    import torch
    file, state = TorchFile(folder / _WEIGHTS), torch.load(folder / _WEIGHTS, weights_only=True)
    different = [name for name in file.shapes.keys() | state.keys() if name not in state
                 or not np.array_equal(file.read(name), state[name].numpy())]
    if different:
        raise ValueError(f"PyTorch reads other numbers of {', '.join(sorted(different)[:3])}")
    again, params = from_pretrained(folder, model.head.name, labels=model.head.labels or None)
    return outputs_of(again, params, inputs)
