"""Format "tfds": TensorFlow Datasets in ArrayRecord files, given as `tfds:NAME[:SPLIT]` or `tfds:DIRECTORY[:SPLIT]`."""
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from spanbert_jax.common.errors import UserError, suggestion
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.json_files import read_json
from spanbert_jax.corpus.documents import Document, split_document
from spanbert_jax.corpus.sources.base import CorpusFormat, FieldNames, SourceFile
from spanbert_jax.corpus.sources.files import Decoder

PREFIX = "tfds:"
_NAME_AND_SPLIT = re.compile(r"(.+?)(?::([A-Za-z_]\w*(?:\[[^\]]*\])?))?")  # NAME may end in :VERSION


def _find(source: str, generated: pathlib.Path | None) -> SourceFile | None:
    if not source.startswith(PREFIX):
        return None
    parts = _NAME_AND_SPLIT.fullmatch(source.removeprefix(PREFIX))
    if not parts:
        raise UserError(f"source {source!r}: give tfds:NAME or tfds:NAME:SPLIT")
    return SourceFile(parts[1], "tfds", parts[2] or "train")


def _read(file: SourceFile, fields: FieldNames, issues: DataIssues) -> Iterator[Document]:
    name = f"{PREFIX}{file.path}:{file.split}"
    try:
        data = _open(file)
        count = len(data)
    except UserError:
        raise
    except Exception as error:  # TFDS raises many types
        raise UserError(f"source {name}: {_first_line(error)}; prepare it as array_record") from None
    decode = Decoder(f"{PREFIX}{file.path}", issues)
    for index in range(count):
        try:
            record = data[index]
        except Exception as error:  # ArrayRecord and the feature decoders raise many types
            raise UserError(f"source {name}: record {index + 1} cannot be read ({_first_line(error)}); restore a valid "
                            "copy") from None
        if fields.text not in record:
            raise UserError(f"tfds:{file.path}: feature {fields.text!r} is missing (features here: "
                            f"{', '.join(record)}); name the text's feature with --text-field")
        text = record[fields.text]
        text = decode(text, index + 1) if isinstance(text, bytes) else str(text)
        yield from split_document(Document(text, f"tfds:{file.path}", index + 1, ()), issues)


def _open(file: SourceFile) -> Sequence[dict[str, Any]]:
    """Opens a TFDS dataset, given by directory or by name, without running code of the dataset.

    TFDS imports the modules that features.json names, which could be any. Only those of TFDS itself are allowed.
    """
    import tensorflow_datasets as tfds  # slow to import, and most corpora need no TFDS source
    from tensorflow_datasets.core import read_only_builder
    try:
        directory = file.path if os.path.isdir(file.path) else read_only_builder._find_builder_dir(file.path)
    except AttributeError:  # of TFDS itself, as it reports that there is no such folder
        directory = None
    if directory is None:
        name, folder = re.split("[/:]", file.path)[0], pathlib.Path(tfds.core.constants.DATA_DIR)
        known = {*tfds.list_builders(with_community_datasets=False), *(path.name for path in folder.glob("*/"))}
        raise UserError(f"source tfds:{file.path}: neither a directory nor prepared in {folder}; "
                        f"{'' if name in known else suggestion(name, known)}prepare it there as array_record")
    features = pathlib.Path(directory, "features.json")
    for name in _feature_classes(read_json(features, dict[str, Any], "prepare the dataset again")):
        if not name.startswith("tensorflow_datasets."):
            raise UserError(f"source {features}: feature class {name!r} is not part of TFDS and could run any code; "
                            "give the text in another format, such as JSON lines")
    return tfds.builder_from_directory(directory).as_data_source(split=file.split)


def _feature_classes(value: Any) -> Iterator[str]:
    """Yields the class names in the content of features.json, in its newer and its older form."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("pythonClassName", "python_class_name", "type") and isinstance(inner, str):
                yield inner
            yield from _feature_classes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _feature_classes(inner)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


TFDS = CorpusFormat(_read, find=_find)
