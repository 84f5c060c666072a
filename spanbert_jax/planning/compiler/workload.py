"""What a run is made of, as far as the compiler needs to know it: a config, and the facts of a corpus."""
from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from spanbert_jax.common.errors import UserError
from spanbert_jax.corpus import Corpus, open_corpus
from spanbert_jax.corpus.rows import UINT8_FEATURES
from spanbert_jax.pretraining.config import validate
from spanbert_jax.text import SpecialIds, load_tokenizer
from spanbert_jax.training.experiment import Experiment
from spanbert_jax.training.init_from import with_network
from spanbert_jax.training.mesh import AXES, batch_sharding

# Of a corpus that is not there yet: the pieces of bert-base-cased, the vocabulary of the published models.
_VOCAB_SIZE = 28_996
_PACKED_BLOCKS = 8
_STAND_IN = "(a corpus yet to be prepared)"


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the step depends on of a corpus.

    Attributes:
      length: S.
      vocab_size: V.
      max_blocks: of a row.
      rows: in an epoch; 0 where no corpus is there yet.
    """
    length: int
    vocab_size: int
    max_blocks: int
    rows: int


def workload(config: ml_collections.ConfigDict) -> tuple[ml_collections.ConfigDict, Facts]:
    """A config whose network is settled, and the facts of its corpus, which need not have been prepared yet.

    Raises:
      UserError: as a run would, or when the run's length is in epochs of a corpus that is not there.
    """
    config = config.copy_and_resolve_references()
    data = config.data
    corpus = open_corpus(data.path) if data.path and pathlib.Path(data.path).exists() else None
    if corpus:
        facts = Facts(corpus.length, corpus.vocab_size, corpus.max_blocks, corpus.num_rows["train"])
    else:
        vocab_size = data.vocab_size or _VOCAB_SIZE
        if data.tokenizer and pathlib.Path(data.tokenizer).exists():
            vocab_size = load_tokenizer(data.tokenizer).get_vocab_size()
        facts = Facts(data.length, vocab_size, 2 if data.blocks == "pairs" else _PACKED_BLOCKS if data.pack else 1, 0)
        if "epoch" in config.train.duration:
            raise UserError(f"config.train.duration={config.train.duration!r}: how long an epoch is cannot be known "
                            "without the corpus; prepare it and give config.data.path, or write steps or tokens")
        if not data.sources:
            data.path, data.tokenizer, data.vocab_size = _STAND_IN, "", 0
    validate(config)
    return with_network(config, pathlib.Path(_STAND_IN)), facts


def stand_in(facts: Facts, config: ml_collections.ConfigDict) -> Corpus:
    """A corpus of which there is nothing but the facts."""
    field = "annotations" if "annotated" in config.masking.scheme else ""
    return Corpus(
        path=pathlib.Path(_STAND_IN), length=facts.length, vocab_size=facts.vocab_size,
        special=SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4), max_blocks=facts.max_blocks,
        blocks=config.data.blocks if config.data.sources or not config.objectives.next_sentence else "pairs",
        unigram=np.ones(facts.vocab_size, np.int64), num_rows={"train": facts.rows or 10**7},
        tokenizer_path=pathlib.Path(_STAND_IN), report={"settings": {"annotation_field": field}})


def abstract_batch(experiment: Experiment) -> dict[str, Any]:
    """A batch as the loader gives it, as shapes with shardings."""
    rows, length = experiment.workload.rows_per_step, experiment.workload.length
    sharding = batch_sharding(experiment.mesh, experiment.config.mesh.rules)

    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    return {"tokens": array(jnp.int32, rows, length), "next_sentence": array(jnp.int32, rows),
            **{name: array(jnp.uint8, rows, length) for name in UINT8_FEATURES}}


def abstract_stop_flags(experiment: Experiment) -> jax.ShapeDtypeStruct:
    """What `mesh.stop_flags` gives."""
    return jax.ShapeDtypeStruct((experiment.mesh.size,), jnp.bool_,
                                sharding=NamedSharding(experiment.mesh, PartitionSpec(AXES)))
