"""Rows as a TFDS dataset in ArrayRecord, written without TensorFlow. Import it only where rows are written: TFDS is slow."""
import contextlib
import io
import pathlib
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from spanbert_jax.corpus.rows import UINT8_FEATURES, Rows

_SMALL_VOCABULARY = 65_536


class RowBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS builder whose examples are rows handed to it."""

    VERSION = tfds.core.Version("1.0.0")
    name = "spanbert_rows"
    url_infos = {}  # nothing is downloaded; the inherited look-up needs the package importlib_resources

    def __init__(self, splits: Mapping[str, Iterable[Rows]], length: int, vocab_size: int, **kwargs: Any):
        """Args: splits: rows of each split in batches; length: S; vocab_size: V, which settles the token type."""
        self._splits = splits
        self._length = length
        self._token_dtype = np.dtype(np.uint16 if vocab_size <= _SMALL_VOCABULARY else np.int32)
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        def tensor(shape: tuple[int, ...], dtype: np.dtype) -> tfds.features.Tensor:
            return tfds.features.Tensor(shape=shape, dtype=dtype, encoding=tfds.features.Encoding.BYTES)

        features = {"tokens": tensor((self._length,), self._token_dtype), "next_sentence": tensor((), np.dtype(np.int32)),
                    **{name: tensor((self._length,), np.dtype(np.uint8)) for name in UINT8_FEATURES}}
        return tfds.core.DatasetInfo(
            builder=self, description="Rows of piece ids for pretraining.", features=tfds.features.FeaturesDict(features),
            disable_shuffling=False)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(batches) for split, batches in self._splits.items()}

    def _generate_examples(self, batches: Iterable[Rows]) -> Any:
        key = 0
        for batch in batches:
            batch = {**batch, "tokens": batch["tokens"].astype(self._token_dtype)}
            for index in range(len(batch["tokens"])):
                yield key, {name: array[index] for name, array in batch.items()}
                key += 1


def write_rows(directory: pathlib.Path, splits: Mapping[str, Iterable[Rows]], length: int, vocab_size: int) -> None:
    """Writes a TFDS dataset directly into `directory`, which exists. Splits are taken in turn, their batches in order."""
    tfds.disable_progress_bar()
    with tempfile.TemporaryDirectory(dir=directory) as scratch, contextlib.redirect_stdout(io.StringIO()):
        builder = RowBuilder(splits, length, vocab_size, data_dir=scratch)
        builder.download_and_prepare()
        for file in pathlib.Path(builder.data_dir).iterdir():
            file.rename(directory / file.name)
