"""The fields of an experiment, their defaults, and what may stand in them."""
from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterable
from typing import Any

import ml_collections

from spanbert_jax.common.errors import UserError
from spanbert_jax.model.attention import BACKENDS
from spanbert_jax.model.compute import REMAT_POLICIES
from spanbert_jax.training.durations import RunSize
from spanbert_jax.training.optimizers import optimizer_names
from spanbert_jax.training.profiling import parse_steps
from spanbert_jax.training.schedules import SCHEDULES

# Fields of `config.model` that its size gives, where they are 0.
SHAPE = ("num_layers", "width", "num_heads", "feed_forward")


def shared_defaults() -> ml_collections.ConfigDict:
    """The fields of every run, whatever its workload, with their defaults."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    # Weights to begin from: whatever `spanbert-jax import` takes. Their network's shape takes the place of model.size.
    config.init_from = ""
    # Updates to trace for TensorBoard and Perfetto, by the number that their lines have: "100-104,2000".
    config.profile = ""

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
    # A name in `spanbert_jax.model.attention.BACKENDS`; "auto" is the fastest that changes nothing.
    model.attention = "auto"
    model.layers = "unrolled"
    model.remat = "none"

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


def choose(config: ml_collections.ConfigDict, field: str, allowed: Any) -> None:
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
    choose(config, "model.dtype", ("bfloat16", "float32"))
    choose(config, "train.gradient_dtype", ("float32", "bfloat16"))
    choose(config, "model.attention", ("auto", *BACKENDS.names()))
    choose(config, "model.layers", ("scanned", "unrolled"))
    choose(config, "model.remat", tuple(REMAT_POLICIES))
    choose(config, "optimizer.schedule", tuple(SCHEDULES))
    choose(config, "optimizer.name", optimizer_names())
    choose(config, "optimizer.decay_mask", ("all", "kernels"))
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
