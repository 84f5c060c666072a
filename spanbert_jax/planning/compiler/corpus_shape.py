"""The properties of a corpus that a compiled train step depends on, and abstract inputs of the step."""
import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.paths import user_path
from spanbert_jax.corpus import Corpus, open_corpus
from spanbert_jax.corpus.rows import UINT8_FEATURES
from spanbert_jax.pretraining.config import PretrainingConfig
from spanbert_jax.text import SpecialIds, load_tokenizer, vocabulary_size
from spanbert_jax.training.experiment import Experiment
from spanbert_jax.training.init_from import with_architecture
from spanbert_jax.training.mesh import AXES, batch_sharding

# Assumed of a corpus that is not prepared yet: the vocabulary of bert-base-cased, which the published models use.
_VOCAB_SIZE = 28_996
_BLOCKS_PER_PACKED_ROW = 8
_PLACEHOLDER = "(a corpus that is not prepared yet)"


@dataclasses.dataclass(frozen=True)
class CorpusShape:
    """Sizes of a corpus."""
    length: int  # tokens in a row, S
    vocab_size: int  # V
    max_blocks: int  # blocks in the fullest row
    rows: int  # rows in an epoch; 0 if the corpus is not prepared yet


def resolve_config(config: PretrainingConfig) -> tuple[PretrainingConfig, CorpusShape]:
    """A copy of a config with its model's fields filled in, and the shape of its corpus, which need not exist yet.

    Raises:
      UserError: the config is not valid, or the run's length is in epochs of a corpus that is not prepared yet.
    """
    data = config.data
    corpus = open_corpus(data.path) if data.path and user_path(data.path).exists() else None
    if corpus:
        shape = CorpusShape(corpus.length, corpus.vocab_size, corpus.max_blocks, corpus.num_rows["train"])
    else:
        vocab_size = data.vocab_size or _VOCAB_SIZE
        if data.tokenizer and user_path(data.tokenizer).exists():
            vocab_size = vocabulary_size(load_tokenizer(data.tokenizer))
        blocks = 2 if data.blocks == "pairs" else _BLOCKS_PER_PACKED_ROW if data.pack else 1
        shape = CorpusShape(data.length, vocab_size, blocks, 0)
        if "epoch" in config.train.duration:
            raise UserError(f"config.train.duration={config.train.duration!r}: the length of an epoch is unknown "
                            "without a corpus; prepare it and set config.data.path, or use steps or tokens")
        if not data.sources:
            config = config.replace(data=data.replace(path=_PLACEHOLDER, tokenizer="", vocab_size=0))
    config.validate("config")
    return with_architecture(config, pathlib.Path(_PLACEHOLDER)), shape


def placeholder_corpus(shape: CorpusShape, config: PretrainingConfig) -> Corpus:
    """A corpus without rows that has a shape, for building an experiment."""
    field = "annotations" if "annotated" in config.masking.scheme else ""
    return Corpus(
        path=pathlib.Path(_PLACEHOLDER), length=shape.length, vocab_size=shape.vocab_size,
        special=SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4), max_blocks=shape.max_blocks,
        blocks=config.data.blocks if config.data.sources or not config.objectives.next_sentence else "pairs",
        unigram=np.ones(shape.vocab_size, np.int64), num_rows={"train": shape.rows or 10**7},
        tokenizer_path=pathlib.Path(_PLACEHOLDER), report={"settings": {"annotation_field": field}})


def abstract_inputs(experiment: Experiment) -> tuple[dict[str, Any], jax.ShapeDtypeStruct]:
    """Shapes and shardings of a batch of the loader, and of the stop flags, one for each device."""
    rows, length, mesh = experiment.workload.rows_per_step, experiment.workload.length, experiment.mesh
    sharding = batch_sharding(mesh, experiment.config.mesh.rules)

    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    batch = {"tokens": array(jnp.int32, rows, length), "next_sentence": array(jnp.int32, rows),
             **{name: array(jnp.uint8, rows, length) for name in UINT8_FEATURES}}
    return batch, jax.ShapeDtypeStruct((mesh.size,), jnp.bool_, sharding=NamedSharding(mesh, PartitionSpec(AXES)))
