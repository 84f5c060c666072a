"""The task protocol: all that training, evaluation and prediction know of a task. A new task is one file and one name.

A `Task` is a frozen value: typed settings and fitted state. `fit` and `tune` return new tasks. The abstract methods
read examples, turn them into features, compute the loss, decode outputs and score predictions. The other methods have
defaults for an encoder with one head; a task of another kind overrides those that differ: its model, its initial
parameters, how features are packed into rows, or what prediction computes.
"""
import abc
import dataclasses
import json
import logging
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import usual_mode
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.settings import Settings, setting, to_dict
from spanbert_jax.interop import continuation
from spanbert_jax.interop.exporting import save_pretrained
from spanbert_jax.interop.pretrained import load_params, open_pretrained
from spanbert_jax.interop.sources.safetensors_file import SafetensorsFile
from spanbert_jax.model import ComputeConfig, EncoderModel, Head, ModelConfig, make_head, train_step_flops
from spanbert_jax.model.losses import LossSums, add_rows
from spanbert_jax.tasks.features import Features
from spanbert_jax.tasks.files.reading import Example, resolve_files
from spanbert_jax.tasks.packing import PackedRows, most_texts, pack, row_length

logger = logging.getLogger("spanbert_jax")
Prediction = dict[str, Any]
Model = Any  # a Flax module; see `Task.build_model`
E = TypeVar("E", bound=Example)
# "note" of a prediction that cannot be trusted.
NOT_FINITE = "the model's scores are not finite"
# Parameters outside the encoder of a task's own module, by their paths.
OWN_WEIGHTS_FILE = "task_head.safetensors"
_TOKENS_PER_TEXT = 8  # a packed row for prediction holds at most one text per so many positions


def select_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of packed rows that an encoder reads."""
    return {name: batch[name] for name in ("tokens", "segments", "token_types", "first")}


@dataclasses.dataclass(frozen=True)
class Program:
    """What prediction computes from parameters and rows."""
    # From parameters and a batch [R, ...] to outputs by name; traced by jit.
    compute: Callable[[Any, Mapping[str, jax.Array]], dict[str, jax.Array]]
    # The arrays of a batch of packed rows that `compute` reads.
    inputs: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
    per_text: bool  # whether outputs are [R, K, ...], an entry per text of a row, or [R, S, ...], one per position
    # Changes parameters to the layout that `compute` reads; jitted and called once.
    prepare_params: Callable[[Any], Any] | None = None
    # From the outputs of all features, on the host, these features, and the parameters as `compute` reads them, to the
    # outputs that `Task.decode` takes.
    finish: Callable[[dict[str, np.ndarray], Features, Any], dict[str, Any]] = lambda outputs, features, params: outputs
    # These outputs, and the loss sums of a batch with labels; None if prediction does not compute what training does.
    compute_with_loss: Callable[[Any, Mapping[str, jax.Array]], tuple[dict[str, jax.Array], LossSums]] | None = None
    # Compute on the devices of each process with a whole copy of the parameters, also during training, where the mesh
    # may split them.
    local: bool = False


@dataclasses.dataclass(frozen=True)
class LossEvaluation:
    """Evaluation by held-out loss."""
    metric: str  # name of the metric that compares checkpoints; higher is better
    loss: Callable[[Any, Mapping[str, jax.Array]], LossSums]  # as `Task.loss`
    metrics: Callable[[float, float, float], dict[str, float]]  # of the sums of loss, correct targets and targets


class Classes(NamedTuple):
    """True and predicted classes, in the same order: a name, or several names where there may be several classes."""
    unit: str  # what is classified: "example" or "word"
    answers: list[Any]
    predicted: list[Any]


@dataclasses.dataclass(frozen=True)
class TaskSettings(Settings):
    """Settings of every task: the part of `config.task` that a trained model stores."""
    length: int = setting(128, "Maximum number of tokens per feature, special tokens included.", minimum=3)


@dataclasses.dataclass(frozen=True)
class FittedState(Settings):
    """What a task derives from its examples and a trained model stores. All values are JSON-able.

    A value equal to its default is not stored. `labels` are the names of the classes of a classification head.
    """
    labels: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Task(abc.ABC, Generic[E]):
    """Reads examples of a type E, makes features, computes the loss, decodes and scores."""
    settings: Any = None  # an instance of `Settings`
    fitted: Any = None  # an instance of `Fitted`; empty until `fit` is called

    # The classes of both; a task with more fields has subclasses of its own.
    Settings: ClassVar[type[TaskSettings]] = TaskSettings
    Fitted: ClassVar[type[FittedState]] = FittedState
    other_names: ClassVar[tuple[str, ...]] = ()  # by which pipelines know the task, besides the registered one
    head: ClassVar[str | None] = None  # name of the model's head, for the default `build_model`
    label_fields: ClassVar[tuple[str, ...]]  # names of the feature columns and token columns that `loss` reads

    def __post_init__(self) -> None:
        if self.settings is None:
            object.__setattr__(self, "settings", self.Settings())
        if self.fitted is None:
            object.__setattr__(self, "fitted", self.Fitted())
        self.settings.validate("config.task")

    @property
    @abc.abstractmethod
    def metric(self) -> str:
        """Name of the score that compares two models; higher is better."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names of a classification head; empty before `fit`."""
        return self.fitted.labels

    def with_fitted(self, **values: Any) -> Self:
        """A copy with other fitted values."""
        return dataclasses.replace(self, fitted=dataclasses.replace(self.fitted, **values))

    # Examples and features.

    @abc.abstractmethod
    def read(self, path: str, issues: DataIssues, with_labels: bool = True) -> Iterator[E]:
        """Yields the examples of a file one by one, in little memory.

        Args:
          issues: counts what is repaired or left out, with locations.
          with_labels: labels must be present; otherwise they are ignored.

        Raises:
          UserError: file, line and id of an error, what is allowed and what to do.
        """

    @abc.abstractmethod
    def example(self, inputs: str | Mapping[str, Any], location: str, issues: DataIssues) -> E:
        """The example for an input given in Python: fields by name, or one text if that is enough.

        `location` is its id, and names it in messages. Raises UserError if a field is missing or wrong.
        """

    def combine(self, examples: list[E], issues: DataIssues) -> list[E]:
        """The examples of several files as one part. Raises UserError if they conflict."""
        return examples

    def fit(self, examples: Sequence[E], tokenizer: Tokenizer) -> Self:
        """The task fitted to the training examples, for example with the names of all classes."""
        return self

    @abc.abstractmethod
    def features(self, examples: Sequence[E], tokenizer: Tokenizer, issues: DataIssues,
                 with_labels: bool = True) -> Features:
        """The model's inputs: one or several features per example, in order; deterministic.

        They have the columns and token columns of `label_fields` if `with_labels`. Raises UserError with location and
        id of an example that cannot be used.
        """

    def pack(self, features: Mapping[str, Features], pad: int, seed: int) -> dict[str, PackedRows]:
        """Training and evaluation rows of each part, all of one shape, so that each program compiles once.

        Args:
          features: by part: "train", "dev", "test".
          pad: id of [PAD].
          seed: of the order in which features of equal length are packed.
        """
        lengths = np.concatenate([part.lengths for part in features.values()])
        length = row_length(lengths)
        return {name: pack(part, length, pad, self.label_fields, seed, most_texts(lengths, length))
                for name, part in features.items()}

    # Model and loss.

    def build_model(self, encoder: ModelConfig, compute: ComputeConfig, tokenizer: Tokenizer) -> Model:
        """The Flax module that is trained.

        A module of another kind needs the attributes `config` (the encoder's) and `dummy_inputs` (keyword arguments to
        initialize it with), and the encoder as its submodule `encoder`; its other parameters are initialized at random
        and stored next to the encoder.
        """
        return EncoderModel(encoder, self.make_head(), compute)

    def make_head(self) -> Head:
        """The head of the default `build_model`."""
        return make_head(self.head, self.labels)

    def initial_params(self, model: Model, init_from: str, tokenizer: Tokenizer, seed: int) -> Any:
        """Initial float32 parameters on the host: pretrained weights adapted to the model; new ones are logged."""
        pretrained = open_pretrained(init_from)
        if isinstance(model, EncoderModel):
            return continuation.initial_params(pretrained, model, tokenizer, seed)
        encoder = continuation.initial_params(pretrained, EncoderModel(model.config), tokenizer, seed)["encoder"]
        path = pretrained.path / OWN_WEIGHTS_FILE
        if path.is_file():
            if (file := SafetensorsFile(path)).shapes == _own_shapes(model):
                return _own_params(file) | {"encoder": encoder}
            logger.warning("%s: belongs to another task, or has other sizes: its parameters are new here", path)
        params = jax.device_get(nn.unbox(jax.jit(model.init)(jax.random.key(seed), **model.dummy_inputs)["params"]))
        return params | {"encoder": encoder}

    def apply(self, model: Model, params: Any, batch: Mapping[str, jax.Array],
              dropout_key: jax.Array | None = None) -> Any:
        """The model's outputs for packed rows; without dropout if there is no key."""
        return model.apply({"params": params}, batch["tokens"], batch["segments"], batch["token_types"],
                           first=batch["first"], deterministic=dropout_key is None,
                           rngs={} if dropout_key is None else {"dropout": dropout_key})

    @abc.abstractmethod
    def loss(self, outputs: Any, batch: Mapping[str, jax.Array]) -> LossSums:
        """Sums of the loss over the targets of each packed row [R], or over those of all rows, traced by jit.

        Args:
          outputs: as `apply` returns them, for R rows of S positions and at most K texts: token logits [R, S, labels],
            start_logits and end_logits [R, S], or the [R, K, labels] logits of "sequence_classification".
          batch: "segments" [R, S], 0 for padding and k + 1 for tokens of text k; "first" [R, K], position of each
            text's first token; "weights" [R, K], 1 for a text and 0 for none; and `label_fields` by name: columns as
            [R, K, ...], token columns as [R, S, ...], 0 for padding.
        """

    def step_flops(self, model: Model, rows: PackedRows, count: int) -> float:
        """Model FLOPs of a training step on `count` rows."""
        return train_step_flops(model.config, count, rows.length)

    @property
    def loss_evaluation(self) -> LossEvaluation | None:
        """Evaluation by held-out loss during training; None to predict and score the dev examples instead."""
        return None

    # Prediction.

    def program(self, model: Model, tokenizer: Tokenizer) -> Program:
        """What prediction computes from parameters and rows."""
        def by_name(outputs: Any) -> dict[str, jax.Array]:
            return {name: getattr(outputs, name) for name in model.head.outputs}

        def compute_with_loss(params: Any, batch: Mapping[str, jax.Array]) -> tuple[dict[str, jax.Array], LossSums]:
            outputs = self.apply(model, params, batch)
            return by_name(outputs), add_rows(self.loss(outputs, batch))

        return Program(lambda params, batch: by_name(self.apply(model, params, batch)), select_inputs,
                       per_text=model.head.per_text, compute_with_loss=compute_with_loss)

    def prediction_rows(self, features: Features, pad: int) -> list[PackedRows]:
        """Rows for prediction, without labels; several sets may have rows of different lengths."""
        length = row_length(features.lengths)
        return [pack(features, length, pad, most=length // _TOKENS_PER_TEXT)]

    @abc.abstractmethod
    def decode(self, examples: Sequence[E], features: Features, outputs: Mapping[str, Any]) -> list[Prediction]:
        """The predictions of examples, in order: JSON-able, each with "id", and "note" if something is wrong.

        Args:
          features: of these examples.
          outputs: of the program as NumPy arrays: [n, ...] per feature, or [T, ...] per token as in `features.tokens`.
        """

    def tune(self, examples: Sequence[E], predictions: Sequence[Prediction]) -> Self:
        """The task with decoding thresholds and the like chosen on dev examples."""
        return self

    @abc.abstractmethod
    def score(self, examples: Sequence[E], predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Metrics of predictions, `metric` among them; in percent where `common.formatting.is_percent` holds."""

    def classes(self, examples: Sequence[E], predictions: Sequence[Prediction]) -> Classes | None:
        """True and predicted classes, for scores of each class; None if the task has no classes."""
        return None

    def files(self, examples: Sequence[E], predictions: Sequence[Prediction]) -> dict[str, str]:
        """Predictions in the task's official formats: file name -> text."""
        return {}

    @property
    def has_official_format(self) -> bool:
        """Whether `files` returns anything."""
        return type(self).files is not Task.files

    def html(self, examples: Iterable[E], predictions: Iterable[Prediction]) -> Iterator[str]:
        """Yields the parts of one self-contained HTML page that shows predictions with their texts, one by one."""
        return iter(())

    @property
    def has_html(self) -> bool:
        """Whether `html` returns a page."""
        return type(self).html is not Task.html

    # Storage.

    def save_weights(self, folder: pathlib.Path, model: Model, params: Any, tokenizer: Tokenizer) -> None:
        """Writes model, weights and tokenizer into a new folder: a transformers directory."""
        if isinstance(model, EncoderModel):
            save_pretrained(model, params, folder, tokenizer)
            return
        save_pretrained(EncoderModel(model.config), {"encoder": params["encoder"]}, folder, tokenizer)
        own = {name: value for name, value in params.items() if name != "encoder"}
        flat = flax.traverse_util.flatten_dict(jax.device_get(own), sep="/")
        with usual_mode(folder / OWN_WEIGHTS_FILE) as path:
            save_file({name: np.ascontiguousarray(value) for name, value in flat.items()}, path)

    def load_weights(self, folder: pathlib.Path, dtype: str, tokenizer: Tokenizer) -> tuple[Model, Any]:
        """Model and parameters from a folder of `save_weights`. Raises UserError if it is not of this task."""
        pretrained = open_pretrained(folder)
        model = self.build_model(pretrained.config, ComputeConfig(dtype=dtype), tokenizer)
        if isinstance(model, EncoderModel):
            if (pretrained.head.name, pretrained.head.labels) != (model.head.name, model.head.labels):
                raise UserError(f"{folder}: the weights do not belong to the task in task.json; fetch both again")
            return model, load_params(pretrained, model)
        encoder = load_params(pretrained, EncoderModel(model.config))["encoder"]
        file, expected = SafetensorsFile(folder / OWN_WEIGHTS_FILE), _own_shapes(model)
        for name in sorted(expected.keys() | file.shapes.keys()):
            if file.shapes.get(name) != expected.get(name):
                raise UserError(f"{file.path}: {name}: shape {file.shapes.get(name)} where the task in task.json has "
                                f"{expected.get(name)}; fetch both files again")
        return model, jax.device_put(_own_params(file)) | {"encoder": encoder}

    @classmethod
    def of_head(cls, head: Head, length: int, settings: Mapping[str, Any]) -> Self:
        """The task of an encoder that was fine-tuned elsewhere.

        Args:
          head: the model's, which is `cls.head`, with the labels of its config.
          length: the longest text that the model takes.
          settings: those that the user gives.

        Raises:
          UserError: head and settings do not say how to predict.
        """
        raise UserError("only the run that trained a model of this task knows how it reads texts; fine-tune it here")

    @classmethod
    def import_model(cls, folder: pathlib.Path, tokenizer: str | pathlib.Path) -> "tuple[Task, Model, Any, Tokenizer]":
        """Task, model, parameters, tokenizer of an EncoderDecoderModel; UserError if this task cannot use it."""
        raise UserError(f"{folder}: this task does not use an encoder-decoder model; give another --task")


def _own_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """The shapes of the parameters outside the encoder, by their paths."""
    params = jax.eval_shape(lambda: nn.unbox(model.init(jax.random.key(0), **model.dummy_inputs)["params"]))
    own = {name: value for name, value in params.items() if name != "encoder"}
    return {name: value.shape for name, value in flax.traverse_util.flatten_dict(own, sep="/").items()}


def _own_params(file: SafetensorsFile) -> dict[str, Any]:
    """The float32 parameters outside the encoder, of a file with the right shapes."""
    return flax.traverse_util.unflatten_dict(
        {name: file.read(name).astype(np.float32, copy=False) for name in file.shapes}, sep="/")


def evaluate_predictions(task: Task[E], examples: Sequence[E], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Number of examples, and the task's metrics of their predictions."""
    return {"examples": len(examples), **task.score(examples, predictions)}


def fitted_values(task: Task) -> dict[str, Any]:
    """The fitted state that differs from its defaults, as JSON holds it."""
    defaults = to_dict(task.Fitted())
    return json.loads(json.dumps({name: value for name, value in to_dict(task.fitted).items()
                                  if value != defaults[name]}))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis. SciPy's takes a sixth of a second to import."""
    exponentials = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def read_all(task: Task[E], paths: str, issues: DataIssues, with_labels: bool = True) -> list[E]:
    """All examples of comma-separated files, folders and globs. Raises UserError if none, or if examples conflict."""
    examples = [example for file in resolve_files(paths) for example in task.read(file, issues, with_labels)]
    if not examples:
        counted = "".join(f"; {issue}: {count:,}" for issue, count in issues.counts.items())
        raise UserError(f"{paths}: contains no example; is it in another format?{counted}")
    return task.combine(examples, issues)
