"""The config of a run: the sections of every run, to which workloads add theirs, and config.json in the workdir."""
import ast
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import typing
from collections.abc import Mapping
from typing import Any, TypedDict, TypeVar

import ml_collections

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import write_text
from spanbert_jax.common.json_files import read_json
from spanbert_jax.common.paths import user_path
from spanbert_jax.common.registry import load_plugins
from spanbert_jax.common.settings import Settings, from_dict, require, setting, to_dict
from spanbert_jax.model import ARCHITECTURES, ComputeConfig, ModelConfig, PretrainingHeads
from spanbert_jax.training.durations import parse_duration
from spanbert_jax.training.mesh import MeshSettings
from spanbert_jax.training.optimizers import OptimizerSettings
from spanbert_jax.training.profiling import parse_steps
from spanbert_jax.training.renames import rename_fields
from spanbert_jax.training.schedules import ScheduleSettings
from spanbert_jax.training.skipping import SkipSettings
from spanbert_jax.training.trackers import TRACKERS

M = TypeVar("M", bound="ModelSettings")
CONFIG_FILE = "config.json"  # the config of the latest call of a run
# Fields of `ModelSettings` that the named size gives where they are 0.
SHAPE = ("num_layers", "width", "num_heads", "feed_forward")


def encoder_names() -> list[str]:
    """The architectures with an encoder, BERT first; others have no named sizes."""
    return [name for name in ARCHITECTURES.names() if ARCHITECTURES.get(name).sizes]


def _sizes() -> list[str]:
    return list(dict.fromkeys(size for name in encoder_names() for size in ARCHITECTURES.get(name).sizes))


@dataclasses.dataclass(frozen=True)
class ModelSettings(Settings):
    """The part of the section `model` that every architecture has; `model_section` adds the architecture's own.

    A field that is None is not set: see `usual_values`.
    """
    architecture: str = setting("bert", "Kind of encoder.", choices=encoder_names)
    size: str = setting("base", "Named size, which gives the next four fields where they are 0. With init_from, the "
                        "weights decide.", choices=_sizes)
    num_layers: int = setting(0, "Layers, L.", minimum=0)
    width: int = setting(0, "Width of the hidden states, D.", minimum=0)
    num_heads: int = setting(0, "Attention heads, N; each is D / N wide.", minimum=0)
    feed_forward: int = setting(0, "Width of the feed-forward layers, F.", minimum=0)
    max_positions: int | None = setting(None, "Limits the length of a segment; with learned positions, rows of their "
                                        "embedding.", minimum=1)
    dropout: float | None = setting(None, "Dropout rate of embeddings; in BERT, of both outputs of a layer too.",
                                    minimum=0, below=1)
    attention_dropout: float | None = setting(None, "Dropout rate of attention probabilities; in ModernBERT, of the "
                                              "output of attention too.", minimum=0, below=1)
    layer_norm_epsilon: float | None = setting(None, "Added to the variance in layer norms.", above=0)
    boundary_features: int | None = setting(None, "Width of the boundary head's position embedding.", minimum=1)

    @classmethod
    def for_values(cls: type[M], values: Mapping[str, Any], path: str) -> tuple[type[M], Mapping[str, Any]]:
        """The section of the architecture that is named.

        Values that were made for another architecture are kept where they differ from its defaults.
        """
        name, allowed = values.get("architecture", cls.architecture), encoder_names()
        require(name in allowed, f"{path}.architecture", name, f"allowed are {', '.join(map(repr, allowed))}")
        section: Any = model_section(name)
        known = {field.name for field in dataclasses.fields(section)}
        if not values.keys() - known:
            return section, values
        for other in allowed:
            before = to_dict(model_section(other)())
            if not values.keys() - before.keys():
                return section, {name: value for name, value in values.items()
                                 if name == "architecture" or (value != before[name] and name in known)}
        return section, values  # with an unknown field, which is reported where the values are read

    def config(self, vocab_size: int) -> ModelConfig:
        """The config of the architecture."""
        config = ARCHITECTURES.get(self.architecture)
        names = {field.name for field in dataclasses.fields(config)}
        fields = {name: value for name, value in to_dict(self).items()
                  if name in names and value is not None and (value or name not in SHAPE)}
        return config.named(self.size, vocab_size=vocab_size, **fields)


def own_fields(section: ModelSettings) -> list[dataclasses.Field]:
    """The fields of a section `model` that only its architecture has."""
    common = {field.name for field in dataclasses.fields(ModelSettings)}
    return [field for field in dataclasses.fields(section) if field.name not in common]


@functools.cache
def model_section(architecture: str) -> type[ModelSettings]:
    """Class of the section `model` of an architecture: the common fields, and its own, which are None unless set.

    Raises UserError if there is no such architecture.
    """
    config = ARCHITECTURES.get(architecture)
    own = [field for field in dataclasses.fields(config) if "help" in field.metadata]
    hints = {field.name: hint for field, hint in ((field, typing.get_type_hints(config)[field.name]) for field in own)}
    hints = {name: hint | None for name, hint in hints.items()} | typing.get_type_hints(ModelSettings)
    usual = usual_values(architecture)
    fields = []
    for field in (*dataclasses.fields(ModelSettings), *own):
        name, metadata, default = field.name, dict(field.metadata), None if field in own else field.default
        if name in usual:
            metadata["help"] = f"{metadata['help'].rstrip('.')}; None for {_none_means(name, usual[name])}."
        default = architecture if name == "architecture" else default
        fields.append((name, hints[name], dataclasses.field(default=default, metadata=metadata)))
    return dataclasses.make_dataclass("ModelSection", fields, bases=(ModelSettings,), frozen=True)


def _none_means(name: str, usual: Any) -> str:
    """In words, the value of a field that is None."""
    return f"the usual {usual!r}" if name.endswith("dropout") else f"that of the weights, or {usual!r} without"


@functools.cache
def usual_values(architecture: str) -> Mapping[str, Any]:
    """The values of the fields of a section `model` that are None, in a run that does not begin from weights.

    Raises UserError if there is no such architecture.
    """
    fields = dataclasses.fields(ARCHITECTURES.get(architecture))
    common = {field.name for field in dataclasses.fields(ModelSettings) if field.default is None}
    usual = {field.name: field.default for field in fields if field.name in common or "help" in field.metadata}
    return {"boundary_features": PretrainingHeads().boundary_features} | usual


def without_none(section: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a section `model`, with those of `usual_values` for None."""
    usual = usual_values(section.get("architecture", ModelSettings.architecture))
    return {name: usual.get(name) if value is None else value for name, value in section.items()}


@dataclasses.dataclass(frozen=True)
class TrainSettings(Settings):
    """Length of the run, and batches."""
    duration: str = setting("2.4M steps", "Length of the run in steps, epochs, tokens or examples.")
    batch_size: int = setting(256, "Rows of a step over all devices, B; in fine-tuning examples, on average.",
                              minimum=1)
    accumulation: int = setting(1, "Parts of a batch whose gradients are computed in turn and summed.", minimum=1)
    log_every: int = setting(100, "Steps between two lines of metrics.", minimum=1)

    def validate(self, path: str) -> None:
        super().validate(path)
        require(self.batch_size % self.accumulation == 0, f"{path}.batch_size", self.batch_size,
                f"must be a multiple of train.accumulation={self.accumulation}")
        require(parse_duration(f"{path}.duration", self.duration, whole=False) > 0, f"{path}.duration", self.duration,
                "must be longer than nothing")


@dataclasses.dataclass(frozen=True)
class EvaluationSettings(Settings):
    """Evaluation during the run."""
    every: str = setting("10k steps", "How often the model is evaluated.", check=parse_duration)
    batch_size: int = setting(256, "Rows of a batch over all devices.", minimum=1)


@dataclasses.dataclass(frozen=True)
class CheckpointSettings(Settings):
    """Checkpoints."""
    every: str = setting("10k steps", "How often the state is saved.", check=parse_duration)
    keep: int = setting(2, "Number of newest checkpoints that are kept.", minimum=1)
    keep_every: str = setting("100k steps", "Distance of the checkpoints that are never deleted; '0' deletes all but "
                              "the newest.", check=parse_duration)
    tries: int = setting(3, "Consecutive saves that may fail before the run stops.", minimum=1)


@dataclasses.dataclass(frozen=True)
class RunConfig(Settings):
    """The config of any run."""
    seed: int = setting(0, "Seed of initial parameters, order of rows, masks and dropout.", minimum=0)
    init_from: str = setting("", "Weights to start from: a workdir, or a name or path that `spanbert-jax import` "
                             "takes. They decide the architecture.")
    profile: str = setting("", "Steps to trace for TensorBoard and Perfetto, such as '100-104,2000'.",
                           check=lambda _, text: parse_steps(text))
    trackers: tuple[str, ...] = setting(("tensorboard",), "Where metrics go besides metrics.jsonl: names of registered "
                                        "trackers.", check=lambda path, names: _check_trackers(path, names))
    plugins: tuple[str, ...] = setting((), "Python modules that register tasks, masking schemes and so on; they are "
                                       "imported first.")
    model: ModelSettings = setting(model_section("bert")(), "Architecture of the encoder.")
    compute: ComputeConfig = setting(ComputeConfig(), "How the model is computed.")
    optimizer: OptimizerSettings = setting(OptimizerSettings(), "Optimizer.")
    schedule: ScheduleSettings = setting(ScheduleSettings(), "Learning rate over the run.")
    train: TrainSettings = setting(TrainSettings(), "Length of the run, and batches.")
    evaluation: EvaluationSettings = setting(EvaluationSettings(), "Evaluation during the run.")
    checkpoint: CheckpointSettings = setting(CheckpointSettings(), "Checkpoints.")
    skip: SkipSettings = setting(SkipSettings(), "Updates that are skipped.")
    mesh: MeshSettings = setting(MeshSettings(), "Devices, and how arrays are split over them.")


def _check_trackers(path: str, names: tuple[str, ...]) -> None:
    try:
        for name in names:
            TRACKERS.get(name)
    except UserError as error:
        raise UserError(f"{path}={names!r}: {error}") from error


C = TypeVar("C", bound=RunConfig)


def values_of(config: ml_collections.ConfigDict | RunConfig, cls: type[RunConfig]) -> dict[str, Any]:
    """Nested dictionaries of a config of a class, with today's field names. Raises UserError for another type."""
    if isinstance(config, RunConfig):
        return to_dict(config)
    require(isinstance(config, ml_collections.ConfigDict), "config", config,
            "must be a config as load_config, default_config or default_task_config returns it")
    return rename_fields(config.to_dict(), to_dict(cls()))


def as_typed(config: ml_collections.ConfigDict | C, cls: type[C]) -> C:
    """The typed config of a ConfigDict; a typed one as it is. Its plugins are imported.

    Raises:
      UserError: a plugin cannot be imported, a field does not exist, or its value has another type.
    """
    values = values_of(config, cls)
    load_plugins(values.get("plugins", ()))
    return config if isinstance(config, cls) else from_dict(cls, values)


def parse_argument(argument: str | None, **defaults: Any) -> ml_collections.ConfigDict:
    """The variants that follow the name of a config file, as in `base.py:scheme=whole_word,sbo=false`.

    Args:
      argument: "name=value,name=value", or None.
      **defaults: allowed names. Each has its default, and the value must be of the default's type; or it has a tuple
        of all allowed values, the default first.

    Raises:
      UserError: a name is unknown, or a value has another type or is not allowed.
    """
    choices = {name: default for name, default in defaults.items() if isinstance(default, tuple)}
    for name, allowed in choices.items():
        require(bool(allowed), f"parse_argument: {name}", allowed, "name one or several allowed values")
    values = ml_collections.ConfigDict(defaults | {name: allowed[0] for name, allowed in choices.items()})
    for part in filter(None, (argument or "").split(",")):
        name, _, text = part.partition("=")
        if name not in defaults:
            raise UserError(f"config argument {part!r}: unknown name {name!r}; allowed: {', '.join(defaults)}")
        values[name] = _parse_value(name, text, type(values[name]))
        if values[name] not in choices.get(name, (values[name],)):
            raise UserError(f"config argument {part}: allowed are {', '.join(map(str, choices[name]))}")
    return values


def _parse_value(name: str, text: str, kind: type) -> Any:
    if kind is str:
        return text
    try:
        value = ast.literal_eval(text.capitalize() if kind is bool else text)
        if isinstance(value, kind) or (kind is float and isinstance(value, int)):
            return kind(value)
    except (ValueError, SyntaxError):
        pass
    raise UserError(f"config argument {name}={text}: not a {kind.__name__}")


class _StoredConfig(TypedDict, total=False):
    """Fields of a stored config whose types are needed before `from_dict` checks all."""
    plugins: list[str]
    init_from: str
    model: dict[str, Any]


def load_values(workdir: str | os.PathLike) -> dict[str, Any]:
    """The config of the latest call of a run, as nested dictionaries with today's field names.

    The plugins that it names are imported. Fields that an older version did not have are missing; `from_dict` gives
    them their defaults.

    Raises:
      UserError: `workdir` holds no run, or its config cannot be read.
    """
    path = user_path(workdir) / CONFIG_FILE
    if not path.exists():
        raise UserError(f"{workdir}: no run here ({CONFIG_FILE} is missing); give the workdir of a training run")
    advice = ("if it is damaged, start the run's own command again, with --config, which writes it; else give the "
              "workdir of a training run")
    values = rename_fields(read_json(path, _StoredConfig, advice), warn=False)
    if not {"train"} < values.keys() & {"train", "data", "task"}:
        raise UserError(f"{path}: not the config of a run (it lacks the sections train, and data or task); {advice}")
    load_plugins(values.get("plugins", ()), path.parent)
    return values


def started_values(workdir: str | os.PathLike) -> dict[str, Any]:
    """`load_values` of a run that may not have begun: {} then, and if its config is damaged, which the run rewrites."""
    with contextlib.suppress(UserError):
        return load_values(workdir)
    return {}


def check_kind(workdir: pathlib.Path, config: RunConfig) -> None:
    """Raises UserError if the workdir holds fine-tuning where `config` pretrains, or the reverse."""
    stored = started_values(workdir)
    if stored and ("task" in stored) != ("task" in to_dict(config)):
        kinds = ("fine-tuning", "pretraining") if "task" in stored else ("pretraining", "fine-tuning")
        raise UserError(f"{workdir}: holds a run of {kinds[0]}, and this config is one of {kinds[1]}; give another "
                        "workdir")


def save_config(workdir: pathlib.Path, config: RunConfig) -> None:
    """Writes the config of a run atomically."""
    write_text(workdir / CONFIG_FILE, json.dumps(to_dict(config), indent=2) + "\n")
