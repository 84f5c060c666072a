"""Models from names and paths."""
import dataclasses
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from tokenizers import Tokenizer

from spanbert_jax import text
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import GIT_LFS_POINTER
from spanbert_jax.interop import configuration, weights
from spanbert_jax.interop.architectures import StoredParts, conversion_for, conversion_of
from spanbert_jax.interop.naming import NamedTensors, TensorNames
from spanbert_jax.interop.sources.flax_file import FlaxFile
from spanbert_jax.interop.sources.location import directory_of, is_workdir, locate, readable, weight_files
from spanbert_jax.interop.sources.safetensors_file import OwnFile, SafetensorsFile
from spanbert_jax.interop.sources.tensors import Tensors
from spanbert_jax.interop.sources.workdir import read_workdir
from spanbert_jax.model import ComputeConfig, EncoderModel, EncoderOnly, Head, ModelConfig, PretrainingHeads, make_head
from spanbert_jax.model.heads import TOKEN_EMBEDDING, head_names

logger = logging.getLogger("spanbert_jax")
BOUNDARY_FILE = "span_boundary_head.safetensors"
PARAMS_FILE = "params.safetensors"  # in our own layout
# The released SpanBERT models have the vocabulary of bert-base-cased, of this size, and come without it.
_CASED_VOCABULARY = 28_996


class NoTokenizer(UserError):
    """There are weights without a tokenizer."""


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Stored weights."""
    path: pathlib.Path  # the located file or directory
    tensors: NamedTensors  # the tensors under the names of the architecture
    stored: StoredParts  # their config and heads
    facts: dict[str, Any] | None = None  # facts about their training run, for the model card; None elsewhere

    @property
    def config(self) -> ModelConfig:
        """The config of the architecture."""
        return self.stored.config

    @property
    def head(self) -> Head:
        """The head that is stored."""
        return self.stored.head

    def model(self, head: str | None, labels: Sequence[str] | None = None, dtype: str = "float32") -> EncoderModel:
        """Returns a model for the weights.

        Args:
          head: one of `head_names()`. "pretraining" has the stored pretraining heads, and a new boundary head if
            no pretraining heads are stored.
          labels: classes of a classification head; the stored ones, or else two, if not given.
          dtype: dtype of the activations.
        """
        stored = self.head if head == self.head.name else make_head(head)
        made = make_head(head, labels or stored.labels, stored.problem_type)
        if isinstance(made, EncoderOnly):
            made = EncoderOnly(self.stored.pooler)
        elif isinstance(made, PretrainingHeads):
            made, found = self.stored.pretraining, isinstance(self.head, PretrainingHeads)
            made = dataclasses.replace(made, boundary=made.boundary or not found)
        return EncoderModel(self.config, made, ComputeConfig(dtype=dtype))


def open_pretrained(name_or_path: str | pathlib.Path, step: int | None = None) -> Pretrained:
    """Locates weights and reads their names, config and heads. Each tensor is read when it is needed.

    `name_or_path` is as for `from_pretrained`, and `step` a checkpoint in a workdir, None for the newest valid one.
    Raises UserError if a file is missing, incomplete, or of another architecture.
    """
    with readable(name_or_path):
        return _open(locate(name_or_path), step)


def _open(path: pathlib.Path, step: int | None) -> Pretrained:
    if is_workdir(path):
        tensors, stored, facts = read_workdir(path, step)
        return Pretrained(path, conversion_of(stored.config).tensors(path, [tensors]), stored, facts)
    if step is not None:
        raise UserError(f"{path}: step {step} is asked for, but this is not the workdir of a run, with checkpoints")
    files = weight_files(path)
    if (sidecar := directory_of(path) / BOUNDARY_FILE).is_file() and path.is_dir():
        files.append(sidecar)
    values, file = configuration.read_values(directory_of(path))
    conversion = conversion_for(values, file)
    conversion.check(values, file)
    tensors = conversion.tensors(files[0] if len(files) == 1 else path,
                                 [open_file(file, conversion.names) for file in files],
                                 values.get(configuration.PREFIX, ""))
    stored = conversion.read(tensors, values, file)
    if configuration.PREFIX in values:
        logger.warning("%s: an encoder with a decoder; the encoder is taken", path)
    if foreign := tensors.foreign():
        logger.warning("%s: ignored tensors that the model does not have: %s%s", path, ", ".join(foreign[:3]),
                       f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
    return Pretrained(path, tensors, stored)


def open_file(file: pathlib.Path, names: TensorNames) -> Tensors:
    """Opens a file of any format, and imports the packages for it. `names` are for files in our own layout."""
    with open(file, "rb") as start:
        if start.read(len(GIT_LFS_POINTER)) == GIT_LFS_POINTER:
            raise UserError(f"{file}: a Git LFS pointer, not the weights; fetch them: git lfs pull")
    if file.name == PARAMS_FILE:
        return OwnFile(SafetensorsFile(file), names)
    if file.suffix == ".safetensors":
        return SafetensorsFile(file)
    if file.suffix == ".index":
        from spanbert_jax.interop.sources.tensorflow_checkpoint import TensorFlowCheckpoint
        return TensorFlowCheckpoint(file)
    if file.suffix == ".msgpack":
        return FlaxFile(file)
    from spanbert_jax.interop.sources.torch_file import TorchFile
    return TorchFile(file)


def load_params(pretrained: Pretrained, model: EncoderModel, seed: int = 0) -> dict[str, Any]:
    """Returns parameters, as JAX arrays, for a model from `Pretrained.model`. `seed` is for heads that are not stored.

    Raises UserError if a tensor, which the message names, is missing or invalid.
    """
    tensors = pretrained.tensors
    if TOKEN_EMBEDDING in model.head.inputs:
        tensors.check_ties()
    if model.head.name != pretrained.head.name:
        tensors = tensors.without("classification_head")  # heads for texts and for tokens have the same name
    return weights.load(model, tensors, seed, finish=jax.device_put)


def from_pretrained(name_or_path: str | pathlib.Path, head: str | None = None, *,
                    labels: Sequence[str] | None = None, dtype: str = "float32") -> tuple[EncoderModel, dict[str, Any]]:
    """Returns a model and its parameters.

    `model.apply({"params": params}, input_ids, attention_mask=..., token_type_ids=...)` gives `model.Outputs`.

    Args:
      name_or_path: a directory, the workdir of a training run, a file of weights, an archive of the released SpanBERT,
        or a name on the Hugging Face hub; "spanbert-base-cased" and "spanbert-large-cased" are short for SpanBERT's.
      head: None, "pretraining", "masked_lm", "question_answering", "sequence_classification" or
        "token_classification". A head that is not stored is initialized, with a warning.
      labels: names of the classes of a classification head; the stored ones, or else two, if not given.
      dtype: dtype of the activations; parameters are float32.

    Raises:
      UserError: a file or tensor, which the message names, is missing or invalid.
    """
    if head not in head_names():
        raise UserError(f"head={head!r}: allowed are {', '.join(map(repr, head_names()))}")
    if labels is not None and (isinstance(labels, str) or not labels):
        raise UserError(f"labels={labels!r}: give the names of the classes, one or more, as a list")
    ComputeConfig(dtype=dtype).validate("")
    pretrained = open_pretrained(name_or_path)
    model = pretrained.model(head, labels, dtype)
    return model, load_params(pretrained, model)


def load_tokenizer(name_or_path: str | pathlib.Path, lowercase: bool | None = None) -> Tokenizer:
    """Returns the tokenizer of a model, given as for `from_pretrained`, or of a file (vocab.txt, tokenizer.json).

    `lowercase` is as in `text.load_tokenizer`. Raises NoTokenizer if there is none; for the released SpanBERT archives
    the message names theirs.
    """
    path = locate(name_or_path)
    if path.is_file() and path.name.endswith((".txt", ".json")) and not path.name.endswith(".index.json"):
        return text.load_tokenizer(path, lowercase)
    directory = directory_of(path)
    if not any((directory / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise NoTokenizer(f"{directory}: neither tokenizer.json nor vocab.txt in it{_known_vocabulary(directory)}; put "
                          "the vocabulary that the model was trained with there, or give it by --tokenizer")
    return text.load_tokenizer(directory, lowercase)


def find_tokenizer(pretrained: Pretrained, given: str | pathlib.Path | None = None) -> tuple[Tokenizer | None, str]:
    """Returns the tokenizer of a model, or the `given` path's; or None and the reason why there is none.

    Raises UserError if it has more entries than the model's vocabulary, so it is another model's.
    """
    path = given or pretrained.path
    try:
        tokenizer = load_tokenizer(path)
    except NoTokenizer as error:
        return None, str(error)
    found, wanted = text.vocabulary_size(tokenizer), pretrained.config.vocab_size
    check_entries(tokenizer, wanted, f"{path}: its tokenizer")
    if found < wanted:
        logger.warning("the tokenizer of %s has %s entries and the model %s: correct only if its embedding is padded",
                       path, f"{found:,}", f"{wanted:,}")
    return tokenizer, ""


def check_entries(tokenizer: Tokenizer, rows: int, name: str = "the tokenizer") -> None:
    """Raises UserError if a tokenizer, with this name in the message, has entries without a row in the embedding."""
    if (found := text.vocabulary_size(tokenizer)) > rows:
        raise UserError(f"{name} has {found:,} entries, the last {tokenizer.id_to_token(found - 1)!r}, and the model "
                        f"{rows:,}; give the vocabulary and special tokens that it was trained with")


def _known_vocabulary(directory: pathlib.Path) -> str:
    """Returns a hint about the vocabulary of a model without one, if its size is SpanBERT's."""
    values, _ = configuration.read_values(directory)
    if values.get("vocab_size", _CASED_VOCABULARY) != _CASED_VOCABULARY:
        return ""
    return (" (the released SpanBERT archives have no vocabulary: theirs is that of bert-base-cased, "
            f"{_CASED_VOCABULARY:,} entries, cased)")
