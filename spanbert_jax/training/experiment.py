"""From a config and a corpus to the parts of a run: network, masker, mesh, optimiser."""
from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import optax
from jax.sharding import Mesh

from spanbert_jax.cache import cache_folder
from spanbert_jax.cluster.agreement import is_first
from spanbert_jax.corpus import Corpus, open_corpus, prepare, wait_for_corpus
from spanbert_jax.errors import UserError
from spanbert_jax.model import ModelConfig, SpanBert
from spanbert_jax.model.attention import attention_kind, choose, reason_against
from spanbert_jax.pretraining import Masker, make_masker
from spanbert_jax.pretraining.validation import scheme_shares
from spanbert_jax.training.config import masking_spec, model_config
from spanbert_jax.training.durations import RunSize
from spanbert_jax.training.mesh import Rules, check_batch, make_mesh, mesh_axes
from spanbert_jax.training.optimizers import make_optimizer
from spanbert_jax.training.schedules import learning_rate_schedule
from spanbert_jax.training.state import TrainState, abstract_state


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts of a run that follow from its config and its corpus; nothing in here holds an array.

    Attributes:
      size: durations in steps are asked of it.
      abstract: shapes and shardings of the state.
    """
    config: ml_collections.ConfigDict
    corpus: Corpus
    size: RunSize
    mesh: Mesh
    model: SpanBert
    masker: Masker
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    abstract: TrainState

    def steps(self, room: str, name: str) -> int:
        """The duration in a field of the config, in steps."""
        return self.size.steps(f"config.{room}.{name}", self.config[room][name])


def find_corpus(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Corpus:
    """The prepared corpus that a config names, or its sources prepared into WORKDIR/data, once, by one process."""
    data = config.data
    if data.path:
        return open_corpus(data.path)
    if not is_first():
        return wait_for_corpus(workdir / "data")
    return prepare(
        list(data.sources), workdir / "data", tokenizer=data.tokenizer or None, vocab_size=data.vocab_size or None,
        format=data.format, text_field=data.text_field, annotation_field=data.annotation_field or None,
        length=data.length, blocks=data.blocks, pack=data.pack, validation_fraction=data.validation_fraction,
        short_sequence_probability=data.short_sequence_probability, seed=config.seed)


def check_devices(config: ml_collections.ConfigDict) -> None:
    """Refuses a config that does not go with the devices there are, before a corpus is prepared for it.

    Raises:
      UserError: when the mesh does not fit the devices or the batches do not divide over them.
    """
    mesh, rules = make_mesh(config.mesh), config.mesh.rules
    check_batch(mesh, rules, "config.train.batch_size", config.train.batch_size // config.train.accumulation)
    check_batch(mesh, rules, "config.evaluation.batch_size", config.evaluation.batch_size)


def build(config: ml_collections.ConfigDict, corpus: Corpus,
          devices: Sequence[jax.Device] | None = None) -> Experiment:
    """The parts of a run, on all devices or on those given.

    Raises:
      UserError: when the corpus and the config, or the config and the devices, do not go together.
    """
    mesh, rules = make_mesh(config.mesh, devices), config.mesh.rules
    if corpus.length > config.model.max_positions:
        raise UserError(f"config.model.max_positions={config.model.max_positions}: rows of {corpus.path} are "
                        f"{corpus.length} long; raise it or prepare shorter rows")
    if config.objectives.next_sentence and corpus.blocks != "pairs":
        raise UserError(f"config.objectives.next_sentence=True: {corpus.path} holds blocks of the kind "
                        f"{corpus.blocks!r}; prepare it with --blocks pairs")
    annotated = any(name == "annotated" for name, _ in scheme_shares(config.masking.scheme))
    if annotated and not corpus.report["settings"]["annotation_field"]:
        raise UserError(f"config.masking.scheme={config.masking.scheme!r}: {corpus.path} was prepared without "
                        "annotations; prepare it with --annotation-field")
    if not corpus.num_rows["train"]:
        raise UserError(f"{corpus.path} has no training rows; prepare more text")
    size = RunSize(config.train.batch_size, corpus.length, corpus.num_rows["train"])
    size = dataclasses.replace(size, total_steps=size.steps("config.train.duration", config.train.duration))
    network = model_config(config, corpus.vocab_size)
    model = SpanBert(_with_attention(network, config.model.attention, mesh, rules, corpus.length))
    schedule = learning_rate_schedule(
        config.optimizer.schedule, config.optimizer.learning_rate, size.total_steps,
        size.steps("config.optimizer.warmup", config.optimizer.warmup),
        size.steps("config.optimizer.decay", config.optimizer.decay), config.optimizer.final_fraction)
    optimizer = make_optimizer(config.optimizer, schedule)
    return Experiment(
        config, corpus, size, mesh, model, corpus_masker(config, corpus), schedule, optimizer,
        abstract_state(model, optimizer, mesh, rules, config.mesh.zero1))


def _with_attention(network: ModelConfig, name: str, mesh: Mesh, rules: Rules, length: int) -> ModelConfig:
    """The network with its way of computing attention settled: the fastest that the devices have and changes nothing.

    Raises:
      UserError: when the config names one that cannot compute what it asks for.
    """
    heads = network.num_heads // math.prod(mesh.shape[axis] for axis in mesh_axes(rules, "heads"))
    wanted = mesh.devices.flat[0].platform, length, heads, attention_kind(network), network.dtype
    if name == "auto":
        name = choose(*wanted)
    elif reason := reason_against(name, *wanted):
        raise UserError(f"config.model.attention={name!r}: {reason}; use 'auto' or 'plain'")
    return dataclasses.replace(network, attention=name)


def corpus_masker(config: ml_collections.ConfigDict, corpus: Corpus) -> Masker:
    """The masking of a config over the rows of a corpus."""
    return make_masker(masking_spec(config), length=corpus.length, max_blocks=corpus.max_blocks,
                       special=corpus.special, unigram=corpus.unigram)


def parameter_count(config: ModelConfig, params: Any) -> int:
    """Parameters of the network, without the rows that pad its vocabulary."""
    padding = config.padded_vocab_size - config.vocab_size
    leaves = jax.tree_util.tree_leaves(params)
    return sum(leaf.size // leaf.shape[0] * (leaf.shape[0] - padding) if leaf.shape[0] == config.padded_vocab_size
               else leaf.size for leaf in leaves)


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in the user's cache folder unless JAX has been given another place."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
