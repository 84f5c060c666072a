"""The fields of an experiment, their defaults, and what may stand in them."""
from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterable
from typing import Any

import ml_collections

from spanbert_jax.errors import UserError
from spanbert_jax.model import SIZES, ModelConfig
from spanbert_jax.model.attention import KINDS
from spanbert_jax.model.encoder import REMAT
from spanbert_jax.pretraining import MaskingSpec
from spanbert_jax.pretraining.validation import validate as validate_masking
from spanbert_jax.training.durations import RunSize
from spanbert_jax.training.optimizers import optimizer_names
from spanbert_jax.training.profiling import parse_steps
from spanbert_jax.training.schedules import SCHEDULES

# Fields of `config.model` that its size gives, where they are 0.
SHAPE = ("num_layers", "width", "num_heads", "feed_forward")
# Sections and fields that other runs do without.
_PRETRAINING = {"": ("data", "masking", "objectives"), "evaluation": ("max_rows",)}


def default_config() -> ml_collections.ConfigDict:
    """Every field with its default. A file under configs/ starts from this and changes what it is about."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    # Weights to begin from: whatever `spanbert-jax import` takes. Their network's shape takes the place of model.size.
    config.init_from = ""
    # Updates to trace for TensorBoard and Perfetto, by the number that their lines have: "100-104,2000".
    config.profile = ""

    config.data = data = ml_collections.ConfigDict()
    data.path = ""  # a prepared corpus; or leave empty and give sources, prepared into WORKDIR/data
    data.sources = ()  # files, folders, globs, "python" or "tfds:NAME"
    data.format = "auto"
    data.text_field = "text"
    data.annotation_field = ""
    data.tokenizer = ""  # vocab.txt, tokenizer.json or a folder holding one; or leave empty and give vocab_size
    data.vocab_size = 0
    data.length = 512  # S
    data.blocks = "sentences"
    data.pack = False
    data.validation_fraction = 0.01
    data.short_sequence_probability = 0.0

    config.model = model = ml_collections.ConfigDict()
    model.size = "base"
    model.num_layers = 0  # L; 0: as the size says, here and in the next three
    model.width = 0  # D
    model.num_heads = 0  # N
    model.feed_forward = 0  # F
    model.token_types = 2
    model.max_positions = 512
    model.dropout = 0.1
    model.attention_dropout = 0.1
    model.layer_norm_epsilon = 1e-12
    model.clamp_attention = False
    model.boundary_features = 200
    model.dtype = "bfloat16"
    # A name in `spanbert_jax.model.attention.KINDS`; "auto" is the fastest that changes nothing.
    model.attention = "auto"
    model.layers = "unrolled"
    model.remat = "none"

    config.masking = ml_collections.ConfigDict(vars(MaskingSpec()))

    config.objectives = objectives = ml_collections.ConfigDict()
    objectives.boundary_weight = 1.0  # 0 leaves the boundary head out
    objectives.next_sentence = False  # needs data.blocks = "pairs"
    objectives.reference_denominators = False

    config.optimizer = optimizer = ml_collections.ConfigDict()
    optimizer.name = "adamw"
    optimizer.learning_rate = 1e-4
    optimizer.schedule = "linear"
    optimizer.warmup = "10k steps"
    optimizer.decay = "20 percent"  # of the run, for the schedule "wsd" alone
    optimizer.final_fraction = 0.0  # of the learning rate at the end; "constant" has none
    optimizer.b1 = 0.9
    optimizer.b2 = 0.999
    optimizer.eps = 1e-8
    optimizer.weight_decay = 0.01
    optimizer.decay_mask = "all"
    optimizer.clip_norm = 1.0  # 0 does not clip
    optimizer.freeze = ""  # parameters that stay as they are: regular expressions, see training/parameter_scales.py
    optimizer.layer_decay = 1.0  # factor on the learning rate from each layer to the one below it
    optimizer.options = ""  # further arguments of an optax optimiser: "momentum=0.9,nesterov=True"

    config.train = train = ml_collections.ConfigDict()
    train.duration = "2.4M steps"
    train.batch_size = 256  # rows in a step over all devices, B
    train.accumulation = 1  # parts that a step's batch is computed in
    train.gradient_dtype = "float32"  # in which gradients are summed over the devices; "bfloat16" sends half the bytes
    train.log_every = 100  # steps

    config.evaluation = evaluation = ml_collections.ConfigDict()
    evaluation.every = "10k steps"
    evaluation.batch_size = 256
    evaluation.max_rows = 8192

    config.checkpoint = checkpoint = ml_collections.ConfigDict()
    checkpoint.every = "10k steps"
    checkpoint.keep = 2  # the newest
    checkpoint.keep_every = "100k steps"  # and these for good; "0" keeps none
    checkpoint.tries = 3  # saves that may fail in a row before the run stops

    config.skip = skip = ml_collections.ConfigDict()
    skip.stop_after = 0  # leave out bad updates, stop after so many in a row; 0: the first non-finite one ends it all
    skip.deviations = 10.0  # a loss or gradient norm so far above the median of the last updates is bad

    config.mesh = mesh = ml_collections.ConfigDict()
    mesh.data = -1  # -1: the devices that the others leave
    mesh.fsdp = 1
    mesh.tensor = 1
    mesh.zero1 = False  # each device of the data axis keeps and updates its part of the optimiser state alone
    # Logical axis -> mesh axis or axes; an axis without a rule is replicated.
    mesh.rules = (("batch", ("data", "fsdp")), ("vocab", "tensor"), ("heads", "tensor"), ("mlp", "tensor"),
                  ("embed", "fsdp"))
    return config


def shared_defaults() -> ml_collections.ConfigDict:
    """The fields that every run has, whatever it learns."""
    config = default_config()
    for section, fields in _PRETRAINING.items():
        for field in fields:
            del (config[section] if section else config)[field]
    return config


def parse_argument(argument: str | None, **defaults: Any) -> ml_collections.ConfigDict:
    """The variants that a config file is asked for after its name, as in `base.py:scheme=whole_word,sbo=false`.

    Args:
      argument: "name=value,name=value", or None.
      **defaults: the names that the file knows, each with its default, whose type the value must have; or with a tuple
        of all that is allowed, the default first.

    Raises:
      UserError: when a name is unknown, or a value has another type or is not allowed.
    """
    choices = {name: default for name, default in defaults.items() if isinstance(default, tuple)}
    values = ml_collections.ConfigDict(defaults | {name: allowed[0] for name, allowed in choices.items()})
    for part in filter(None, (argument or "").split(",")):
        name, _, text = part.partition("=")
        if name not in defaults:
            raise UserError(f"config argument {part!r}: unknown name {name!r}; allowed: {', '.join(defaults)}")
        values[name] = _value(name, text, type(values[name]))
        if values[name] not in choices.get(name, (values[name],)):
            raise UserError(f"config argument {part}: allowed are {', '.join(map(str, choices[name]))}")
    return values


def _value(name: str, text: str, kind: type) -> Any:
    """`text` as a value of a type."""
    if kind is str:
        return text
    try:
        value = ast.literal_eval(text.capitalize() if kind is bool else text)
        if isinstance(value, kind) or (kind is float and isinstance(value, int)):
            return kind(value)
    except (ValueError, SyntaxError):
        pass
    raise UserError(f"config argument {name}={text}: not a {kind.__name__}")


def require(holds: bool, field: str, value: Any, allowed: str) -> None:
    """Raises UserError, naming a field of the config, where something does not hold of its value."""
    if not holds:
        raise UserError(f"config.{field}={value!r}: {allowed}")


def _choose(config: ml_collections.ConfigDict, field: str, allowed: Any) -> None:
    room, name = field.split(".")
    value = config[room][name]
    require(value in allowed, field, value, f"allowed are {', '.join(map(repr, allowed))}")


def check_ranges(config: ml_collections.ConfigDict, at_least_one: Iterable[str] = (), shares: Iterable[str] = (),
                 not_negative: Iterable[str] = ()) -> None:
    """Checks the numbers that one field alone decides on: those of every run, and further ones by name."""
    def check(field: str, holds: Callable[[Any], bool], allowed: str) -> None:
        value = functools.reduce(lambda section, name: section[name], field.split("."), config)
        require(holds(value), field, value, allowed)

    for field in ("model.dropout", "model.attention_dropout", *shares):
        check(field, lambda value: 0 <= value < 1, "must be at least 0 and below 1")
    for field in ("train.batch_size", "train.accumulation", "train.log_every", "evaluation.batch_size",
                  "checkpoint.keep", "checkpoint.tries", *at_least_one):
        check(field, lambda value: value >= 1, "must be at least 1")
    for field in ("optimizer.b1", "optimizer.b2", "optimizer.final_fraction"):
        check(field, lambda value: 0 <= value <= 1, "must be at least 0 and at most 1")
    for field in ("seed", "optimizer.eps", "optimizer.weight_decay", "optimizer.clip_norm", "skip.stop_after",
                  *not_negative):
        check(field, lambda value: value >= 0, "must be at least 0")
    for field in ("optimizer.learning_rate", "optimizer.layer_decay", "skip.deviations"):
        check(field, lambda value: value > 0, "must be above 0")


def validate_run(config: ml_collections.ConfigDict) -> None:
    """Checks the sections that every run has, whatever it learns.

    Raises:
      UserError: one line with the field, its value and what is allowed.
    """
    train, mesh = config.train, config.mesh
    _choose(config, "model.dtype", ("bfloat16", "float32"))
    _choose(config, "train.gradient_dtype", ("float32", "bfloat16"))
    _choose(config, "model.attention", ("auto", *KINDS))
    _choose(config, "model.layers", ("scanned", "unrolled"))
    _choose(config, "model.remat", tuple(REMAT))
    _choose(config, "optimizer.schedule", tuple(SCHEDULES))
    _choose(config, "optimizer.name", optimizer_names())
    _choose(config, "optimizer.decay_mask", ("all", "kernels"))
    parse_steps(config.profile)
    require(train.batch_size % train.accumulation == 0, "train.batch_size", train.batch_size,
            f"must be a multiple of train.accumulation={train.accumulation}")
    for axis in ("data", "fsdp", "tensor"):
        require(mesh[axis] >= 1 or (mesh[axis] == -1 and axis == "data"), f"mesh.{axis}", mesh[axis],
                "must be at least 1 (mesh.data may be -1: the devices that are left)")
    example = RunSize(batch_size=1, length=1, rows=1)
    require(example.steps("config.train.duration", train.duration) > 0, "train.duration", train.duration,
            "must be longer than nothing")
    example = RunSize(batch_size=1, length=1, rows=1, total_steps=1)
    for room, name in (("optimizer", "warmup"), ("optimizer", "decay"), ("evaluation", "every"),
                       ("checkpoint", "every"), ("checkpoint", "keep_every")):
        example.steps(f"config.{room}.{name}", config[room][name])


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks every field of a pretraining run, and the combinations of them, before any work is done.

    Raises:
      UserError: one line with the field, its value and what is allowed.
    """
    data = config.data
    validate_masking(masking_spec(config))
    _choose(config, "data.blocks", ("sentences", "contiguous", "pairs"))
    _choose(config, "model.size", tuple(SIZES))
    check_ranges(
        config, shares=("data.validation_fraction", "data.short_sequence_probability"),
        at_least_one=("evaluation.max_rows", "data.length", "model.max_positions", "model.boundary_features",
                      "model.token_types"),
        not_negative=(*(f"model.{name}" for name in SHAPE), "objectives.boundary_weight"))
    require(config.model.layer_norm_epsilon > 0, "model.layer_norm_epsilon", config.model.layer_norm_epsilon,
            "must be above 0")
    validate_run(config)
    network = model_config(config, vocab_size=1)
    require(network.width % network.num_heads == 0, "model.num_heads", config.model.num_heads,
            f"{network.num_heads} heads do not divide the width {network.width}; set model.num_heads or model.width")
    require(not config.objectives.next_sentence or bool(data.path) or data.blocks == "pairs",
            "objectives.next_sentence", True, f"needs data.blocks='pairs', which is {data.blocks!r}")
    require(bool(data.path) or data.length <= config.model.max_positions, "data.length", data.length,
            f"must be at most model.max_positions={config.model.max_positions}")
    require(not (data.pack and data.blocks == "pairs"), "data.pack", True, "pairs are not packed; set it to False")
    require(bool(data.path) != bool(data.sources), "data.path", data.path,
            "give either a prepared corpus here or data.sources, not both and not neither")
    require(not data.path or not (data.tokenizer or data.vocab_size), "data.path", data.path,
            "a prepared corpus has its own tokenizer; leave data.tokenizer and data.vocab_size empty")
    require(bool(data.path) or bool(data.tokenizer) != bool(data.vocab_size), "data.tokenizer", data.tokenizer,
            "give either a tokenizer here or data.vocab_size to train one, not both and not neither")


def masking_spec(config: ml_collections.ConfigDict) -> MaskingSpec:
    """The masking that a config asks for."""
    return MaskingSpec(**config.masking.to_dict())


def model_config(config: ml_collections.ConfigDict, vocab_size: int) -> ModelConfig:
    """The network that a config asks for, with the heads that its objectives need; attention is plain where "auto"."""
    fields = config.model.to_dict()
    if fields["attention"] == "auto":
        del fields["attention"]
    for name in SHAPE:
        if not fields[name]:
            del fields[name]
    return ModelConfig.named(
        fields.pop("size"), vocab_size=vocab_size, boundary_head=config.objectives.boundary_weight > 0,
        boundary_positions=config.masking.max_span_positions, next_sentence_head=config.objectives.next_sentence,
        gradient_dtype=config.train.gradient_dtype,
        **fields)
