"""Writes rows as a TFDS dataset in ArrayRecord, without TensorFlow. TFDS makes this module slow to import.

TFDS's sequential writer writes rows as they arrive. A GeneratorBasedBuilder would collect a split in memory to shuffle
it, and needs TensorFlow above 1 GB; here `RowOrder` shuffles when rows are read. The name of this module and the
description of the dataset are part of dataset_info.json.
"""
import contextlib
import errno
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_info import DatasetIdentity
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from spanbert_jax.corpus.corpus import DATASET
from spanbert_jax.corpus.rows import UINT8_FEATURES, Rows, token_dtype

_VERSION = "1.0.0"
_ROWS_PER_SHARD = 200_000


def write_rows(directory: pathlib.Path, splits: Mapping[str, Iterable[Rows]], length: int, vocab_size: int) -> None:
    """Writes a TFDS dataset, for `tfds.builder_from_directory`, into a directory. Raises OSError if that fails.

    Args:
      splits: batches of rows of each split, read one split after the other.
      length: S, positions per row.
      vocab_size: V, which determines the dtype of tokens on disk.
    """
    dtype = token_dtype(vocab_size)
    identity = DatasetIdentity(
        name=DATASET, version=tfds.core.Version(_VERSION), data_dir=str(directory), module_name=__name__)
    info = tfds.core.DatasetInfo(
        builder=identity, description="Rows of piece ids for pretraining.", features=_features(length, dtype))
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=_ROWS_PER_SHARD, file_format="array_record")
    writer._serializer = _Serializer(info.features.get_serialized_info())
    writer.initialize_splits(list(splits))
    for split, batches in splits.items():
        for batch in batches:
            batch = {**batch, "tokens": batch["tokens"].astype(dtype)}
            rows = [{name: array[row] for name, array in batch.items()} for row in range(len(batch["tokens"]))]
            with _failed_writes():
                writer.add_examples({split: rows})
    with _failed_writes():
        writer.close_all()


class _Serializer(ExampleSerializer):
    """TFDS's serializer, made deterministic: protobuf orders the features of a row by a seed of the process."""

    def serialize_example(self, example: Any) -> bytes:
        return self.get_tf_example(example).SerializeToString(deterministic=True)


@contextlib.contextmanager
def _failed_writes() -> Iterator[None]:
    """Raises OSError for a failed write, which ArrayRecord reports as a RuntimeError when it closes a shard."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(errno.EIO, str(error).splitlines()[0].split(";")[0]) from None


def _features(length: int, tokens_dtype: np.dtype) -> tfds.features.FeaturesDict:
    def tensor(shape: tuple[int, ...], dtype: np.dtype) -> tfds.features.Tensor:
        return tfds.features.Tensor(shape=shape, dtype=dtype, encoding=tfds.features.Encoding.BYTES)

    return tfds.features.FeaturesDict({
        "tokens": tensor((length,), tokens_dtype), "next_sentence": tensor((), np.dtype(np.int32)),
        **{name: tensor((length,), np.dtype(np.uint8)) for name in UINT8_FEATURES}})
