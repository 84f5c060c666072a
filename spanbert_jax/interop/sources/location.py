"""Locates weights: from a name or a path to files on this machine."""
import contextlib
import logging
import pathlib
import re
from collections.abc import Iterator
from typing import Any, TypedDict

from spanbert_jax.checkpoints import FOLDER
from spanbert_jax.common.directories import partial_directory, replace_directory
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import cache_folder, describe_failure
from spanbert_jax.common.identity import content_digest
from spanbert_jax.common.json_files import read_json
from spanbert_jax.common.manifest import folder_difference, require_intact, seal_folder
from spanbert_jax.common.paths import user_path, utf8_path
from spanbert_jax.interop.sources import archives

SHORT_NAMES = {"spanbert-base-cased": "SpanBERT/spanbert-base-cased",
               "spanbert-large-cased": "SpanBERT/spanbert-large-cased"}
PAIR = "encoder-decoder"  # model_type, in config.json, of an encoder-decoder model
# Weight files in a directory; the first that exists is read.
_TRANSFORMERS_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                         "pytorch_model.bin.index.json")
_WEIGHTS = (*_TRANSFORMERS_WEIGHTS, "weights.safetensors", "model.pt", "bert_model.ckpt.index", "flax_model.msgpack")
_WEIGHT_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".index", ".index.json", ".msgpack")
_ARCHIVE_ENDINGS = (".tar.gz", ".tgz", ".tar")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "added_tokens.json",
                    "special_tokens_map.json")
# Other files that are unpacked from an archive.
_MODEL_FILES = (*_TOKENIZER_FILES, "config.json", "bert_config.json", "generation_config.json", "vocab.json",
                "merges.txt")
_CHECKPOINT_DATA = re.compile(r".+\.data-\d+-of-\d+")  # of TensorFlow
# NAME or OWNER/NAME on the hub, and @REVISION: a branch, tag or commit.
_HUB_NAME = re.compile(r"(?P<name>(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_LOCAL_FOLDERS = ("runs", "models", "corpora", "checkpoints", "data", "output", "outputs", "results")
logger = logging.getLogger("spanbert_jax")


class _ShardIndex(TypedDict):
    weight_map: dict[str, str]  # file name by name of a tensor


def locate(name_or_path: str | pathlib.Path) -> pathlib.Path:
    """Returns the file or directory of a path, or of a name on the Hugging Face hub, which is downloaded.

    An existing path takes precedence. A name on the hub may end in @REVISION, and must not look like a path: whoever
    owns the name of a missing folder there would decide what is loaded. Archives are unpacked into the user's cache
    folder. Raises UserError if there is neither such a path nor such a name,
    or if a file in the directory differs from its manifest.
    """
    path = _find(name_or_path)
    require_intact(directory_of(path))
    return path


def _find(name_or_path: str | pathlib.Path) -> pathlib.Path:
    path = utf8_path(name_or_path)
    if pathlib.Path(f"{path}.index").is_file():  # a TensorFlow checkpoint, named by the common prefix of its files
        return pathlib.Path(f"{path}.index")
    if path.is_file() and path.name.endswith(_ARCHIVE_ENDINGS):
        return _unpack(path)
    if path.exists():
        if not (path.is_file() or path.is_dir()):  # a pipe would wait for its writer
            raise UserError(f"{path}: neither a file nor a directory; give one of them")
        # The workdir of a fine-tuning run stands for the model that it made.
        made = path / "model"
        return made if (path / "task.json").is_file() and is_workdir(path) and made.is_dir() else path
    name = str(name_or_path)
    found = _HUB_NAME.fullmatch(name)
    if not found or name.endswith((*_WEIGHT_ENDINGS, *_ARCHIVE_ENDINGS)) or _is_in_local_folder(name):
        raise UserError(f"{name}: no such file or directory; give a directory, a file of weights, a workdir, or a name "
                        "on the Hugging Face hub")
    return _fetch(SHORT_NAMES.get(found["name"], found["name"]), found["revision"])


def _is_in_local_folder(name: str) -> bool:
    """Whether the owner in a name on the hub is also a folder here, or one that these pages use."""
    owner = name.rpartition("/")[0]
    return bool(owner) and (owner in _LOCAL_FOLDERS or user_path(owner).exists())


def directory_of(path: pathlib.Path) -> pathlib.Path:
    """Returns the directory of a located file; a located directory itself."""
    return path if path.is_dir() else path.parent


def is_workdir(path: pathlib.Path) -> bool:
    """Returns whether a directory is the workdir of a training run."""
    return (path / FOLDER).is_dir() and not any((path / name).is_file() for name in _TRANSFORMERS_WEIGHTS)


@contextlib.contextmanager
def readable(name_or_path: str | pathlib.Path) -> Iterator[None]:
    """Turns an OSError, such as a missing permission, into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or name_or_path}: cannot be read ({error.strerror})") from None


def encoder_decoder_at(name_or_path: str | pathlib.Path) -> pathlib.Path | None:
    """Returns the directory of an EncoderDecoderModel; None for another model. Raises UserError like `locate`."""
    with readable(name_or_path):
        path = locate(name_or_path)
    try:
        values = read_json(path / "config.json", dict[str, Any])
        return path if values.get("model_type") == PAIR else None
    except (FileNotFoundError, UserError):
        return None


def is_transformers(path: pathlib.Path) -> bool:
    """Returns whether transformers can read a located directory without PyTorch's reader, which may run code."""
    return (path / "config.json").is_file() and not is_workdir(path) and any(
        (path / name).is_file() for name in _TRANSFORMERS_WEIGHTS if "safetensors" in name)


def weight_files(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the weight files, or shards, at a located path. Raises UserError if they are missing or ambiguous."""
    path = _choose(path) if path.is_dir() else path
    return _shards(path) if path.name.endswith(".index.json") else [path]


def _choose(directory: pathlib.Path) -> pathlib.Path:
    for name in _WEIGHTS:
        if (directory / name).is_file():
            return directory / name
    found = sorted(path for path in directory.iterdir() if path.is_file() and path.name.endswith(_WEIGHT_ENDINGS))
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{directory}: several files of weights ({', '.join(path.name for path in found)}); give the "
                        "one that is meant")
    if checkpoints := sorted(directory.glob("checkpoint-*"), key=lambda path: (len(path.name), path.name)):
        raise UserError(f"{directory}: no weights in it, only checkpoints of transformers' Trainer; give one of them, "
                        f"such as {checkpoints[-1]}, the last one")
    raise UserError(f"{directory}: no weights in it; looked for {', '.join(_WEIGHTS)} and for checkpoints of a run")


def _shards(index: pathlib.Path) -> list[pathlib.Path]:
    names = sorted(set(read_json(index, _ShardIndex)["weight_map"].values()))
    # Only files next to the index, which must not point anywhere else.
    files = [index.parent / pathlib.PurePath(name).name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(f"{index}: {missing[0]} is missing ({len(missing)} of {len(files)} shards); fetch it")
    return files


def _unpack(archive: pathlib.Path) -> pathlib.Path:
    """Returns the directory of an archive's files, unpacked once into the cache without their folders."""
    directory = cache_folder() / "archives" / f"{archive.stem}-{content_digest(archive)}"
    if not folder_difference(directory):
        return directory
    try:
        with partial_directory(directory.parent, directory.name) as new:
            archives.extract(archive, new, _is_model_file)
            seal_folder(new)
            if folder_difference(directory):  # no other process has unpacked it meanwhile
                replace_directory(new, directory)
    except OSError as error:
        if folder_difference(directory):
            raise UserError(f"{directory}: cannot be written ({describe_failure(error, directory)}); make room, or set "
                            "XDG_CACHE_HOME to another folder") from None
    return directory


def _is_model_file(name: str) -> bool:
    return name in _MODEL_FILES or name.endswith(_WEIGHT_ENDINGS) or bool(_CHECKPOINT_DATA.fullmatch(name))


def _fetch(name: str, revision: str | None) -> pathlib.Path:
    """Downloads config, tokenizer and weights of a repository. Returns its directory in the hub's cache."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    def fetch(*patterns: str) -> pathlib.Path:
        return pathlib.Path(huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=["config.json", *_TOKENIZER_FILES, *patterns]))

    try:
        # Weights in PyTorch's format are downloaded only if there are no others.
        directory = fetch("*.safetensors", "*.safetensors.index.json")
        if not any(directory.glob("*.safetensors")):
            directory = fetch("pytorch_model*.bin", "pytorch_model.bin.index.json")
        if not revision:
            logger.warning("%s is taken from the Hugging Face hub; %s@%s is always the same", name, name,
                           directory.name)
        return directory
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}: no such file or directory here, and no download from the Hugging Face hub ({reason});"
                        " check the name and the connection, or give a local directory") from None
