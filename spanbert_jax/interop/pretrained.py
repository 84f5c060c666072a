"""Models from names and paths."""
from __future__ import annotations

import dataclasses
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from tokenizers import Tokenizer

from spanbert_jax import text
from spanbert_jax.common.errors import UserError
from spanbert_jax.interop import configuration, weights
from spanbert_jax.interop.naming import NamedTensors
from spanbert_jax.interop.sources.location import directory_of, is_workdir, locate, readable, weight_files
from spanbert_jax.interop.sources.own_file import OwnFile
from spanbert_jax.interop.sources.safetensors_file import SafetensorsFile
from spanbert_jax.interop.sources.tensors import Tensors
from spanbert_jax.interop.sources.workdir import read_workdir
from spanbert_jax.model import DEFAULT_LABELS, HEADS, EncoderModel, ModelConfig

logger = logging.getLogger("spanbert_jax")
BOUNDARY_FILE = "span_boundary_head.safetensors"
PARAMS_FILE = "params.safetensors"  # in our own layout
# The released SpanBERT models have this many pieces, those of bert-base-cased, and come without them.
_CASED_PIECES = 28_996


class NoTokenizer(UserError):
    """There are weights, and no tokenizer beside them."""


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """What lies at a place: tensors, and what is known of their network.

    Attributes:
      path: the located file or directory.
      tensors: under the names of `layout`.
      config: the network, with every head that is there.
      head: the one that comes with it, one of `HEADS`.
      labels: of its classification head.
      facts: of the training run that it comes from, for its model card; None elsewhere.
    """
    path: pathlib.Path
    tensors: NamedTensors
    config: ModelConfig
    head: str | None
    labels: tuple[str, ...]
    facts: dict[str, Any] | None = None

    def model(self, head: str | None, labels: Sequence[str] | None = None) -> EncoderModel:
        """Its network with a head.

        Args:
          head: one of `HEADS`. "pretraining" has the pretraining heads that come with the tensors, and a new boundary
            head if there is neither that nor a next-sentence head.
          labels: of a classification head; those that are stored, or else two, if not given.
        """
        pretraining = head == "pretraining"
        config = dataclasses.replace(
            self.config, pooler=self.config.pooler and head is None,
            boundary_head=pretraining and (self.config.boundary_head or self.head != "pretraining"),
            next_sentence_head=pretraining and self.config.next_sentence_head)
        if not config.boundary_head:
            config = dataclasses.replace(config, boundary_positions=ModelConfig.boundary_positions,
                                         boundary_features=ModelConfig.boundary_features)
        if labels is None:
            labels = self.labels if head == self.head and self.labels else DEFAULT_LABELS
        return EncoderModel(config, head, tuple(labels))


def open_pretrained(name_or_path: str | pathlib.Path, dtype: str = "float32", step: int | None = None) -> Pretrained:
    """Finds a model and reads what it is; its tensors only when they are asked for.

    Args:
      dtype: of the computation.
      step: of the checkpoint in a workdir; the newest sound one if not given.

    Raises:
      UserError: in one line, naming the file: there is none, it is not whole, or no BERT.
    """
    with readable(name_or_path):
        return _open(locate(name_or_path), dtype, step)


def _open(path: pathlib.Path, dtype: str, step: int | None) -> Pretrained:
    if is_workdir(path):
        stored, config, facts = read_workdir(path, step)
        # How it was compiled for training says nothing of what it is used for now.
        config = dataclasses.replace(config, dtype=dtype, layers=ModelConfig.layers, remat=ModelConfig.remat)
        head = "pretraining" if config.boundary_head or config.next_sentence_head else "masked_lm"
        return Pretrained(path, NamedTensors(path, [stored]), config, head, (), facts)
    if step is not None:
        raise UserError(f"{path}: step {step} is asked for, but this is no workdir of a run, with checkpoints of steps")
    files = weight_files(path)
    if (sidecar := directory_of(path) / BOUNDARY_FILE).is_file() and path.is_dir():
        files.append(sidecar)
    values, file = configuration.read_values(directory_of(path))
    tensors = NamedTensors(files[0] if len(files) == 1 else path, [open_file(file) for file in files],
                           values.get(configuration.PREFIX, ""))
    config = configuration.network(tensors, values, file, dtype)
    if configuration.PREFIX in values:
        logger.warning("%s: it has an encoder and a decoder; the encoder is taken", path)
    if foreign := tensors.foreign():
        logger.warning("%s: left out, since the network has no place for them: %s%s", path, ", ".join(foreign[:3]),
                       f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
    return Pretrained(path, tensors, config, configuration.stored_head(tensors, values),
                      configuration.stored_labels(tensors, values, file))


def open_file(file: pathlib.Path) -> Tensors:
    """Imports what a format needs only where a file of it is opened."""
    if file.name == PARAMS_FILE:
        return OwnFile(SafetensorsFile(file))
    if file.suffix == ".safetensors":
        return SafetensorsFile(file)
    if file.suffix == ".index":
        from spanbert_jax.interop.sources.tensorflow_checkpoint import TensorFlowCheckpoint
        return TensorFlowCheckpoint(file)
    from spanbert_jax.interop.sources.torch_file import TorchFile
    return TorchFile(file)


def load_params(pretrained: Pretrained, model: EncoderModel, seed: int = 0) -> dict[str, Any]:
    """The parameters of `model` as JAX arrays, from what is at a place.

    Raises:
      UserError: naming file and tensor.
    """
    tensors = pretrained.tensors
    if model.head in ("pretraining", "masked_lm"):
        tensors.check_ties()
    if model.head != pretrained.head:
        tensors = tensors.without("classifier")  # of texts and of tokens have one name
    return weights.load(model, tensors, seed, finish=jax.device_put)


def from_pretrained(name_or_path: str | pathlib.Path, head: str | None = None, *,
                    labels: Sequence[str] | None = None, dtype: str = "float32") -> tuple[EncoderModel, dict[str, Any]]:
    """A network with its weights, as `model, params`.

    `model.apply({"params": params}, input_ids, attention_mask=..., token_type_ids=...)` gives `model.Outputs`.

    Args:
      name_or_path: a directory, a workdir of a training run, a file of weights, an archive of the released SpanBERT, or
        a name on the Hugging Face hub; "spanbert-base-cased" and "spanbert-large-cased" are short for SpanBERT's own.
      head: None, "pretraining", "masked_lm", "question_answering", "sequence_classification" or
        "token_classification". One that does not come with the weights is new, and the log says so.
      labels: names of the classes of a classification head; those that are stored, or else two, if not given.
      dtype: of the computation; parameters are float32.

    Raises:
      UserError: in one line, naming file and tensor.
    """
    if head not in HEADS:
        raise UserError(f"head={head!r}: allowed are {', '.join(map(repr, HEADS))}")
    if labels is not None and (isinstance(labels, str) or not labels):
        raise UserError(f"labels={labels!r}: give the names of the classes, one or more, as a list")
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"dtype={dtype!r}: allowed are 'float32', 'bfloat16'")
    pretrained = open_pretrained(name_or_path, dtype)
    model = pretrained.model(head, labels)
    return model, load_params(pretrained, model)


def load_tokenizer(name_or_path: str | pathlib.Path, lowercase: bool | None = None) -> Tokenizer:
    """The tokenizer that comes with a model, or that lies in a file of its own (vocab.txt, tokenizer.json).

    Args:
      lowercase: as in `text.load_tokenizer`.

    Raises:
      NoTokenizer: when there is none; for the released SpanBERT archives it says which one is theirs.
    """
    path = locate(name_or_path)
    if path.is_file() and path.name.endswith((".txt", ".json")) and not path.name.endswith(".index.json"):
        return text.load_tokenizer(path, lowercase)
    directory = directory_of(path)
    if not any((directory / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise NoTokenizer(f"{directory}: neither tokenizer.json nor vocab.txt in it{_whose_pieces(directory)}; put the "
                          "vocabulary that the model was trained with there, or give it by --tokenizer")
    return text.load_tokenizer(directory, lowercase)


def find_tokenizer(pretrained: Pretrained, given: str | None = None) -> tuple[Tokenizer | None, str]:
    """The tokenizer that comes with a model, or the one that is given in its place; without one, None and why.

    Raises:
      UserError: when it has more pieces than the network, so that it is another's.
    """
    try:
        tokenizer = load_tokenizer(given or pretrained.path)
    except NoTokenizer as error:
        return None, str(error)
    if tokenizer.get_vocab_size() > pretrained.config.vocab_size:
        raise UserError(f"{given or pretrained.path}: its tokenizer has {tokenizer.get_vocab_size():,} pieces and the "
                        f"network {pretrained.config.vocab_size:,}; give the vocabulary that it was trained with")
    if tokenizer.get_vocab_size() < pretrained.config.vocab_size:
        logger.warning("the tokenizer of %s has %s pieces and the network %s: right only if its table is padded",
                       given or pretrained.path, f"{tokenizer.get_vocab_size():,}",
                       f"{pretrained.config.vocab_size:,}")
    return tokenizer, ""


def _whose_pieces(directory: pathlib.Path) -> str:
    values, _ = configuration.read_values(directory)
    if values.get("vocab_size", _CASED_PIECES) != _CASED_PIECES:
        return ""
    return (" (the released SpanBERT archives bring no vocabulary: theirs is that of bert-base-cased, "
            f"{_CASED_PIECES:,} pieces, case kept)")
