"""What a task is: all that training, evaluation and prediction know of it. A new task is one file and one name."""
from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import jax
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.model import Outputs
from spanbert_jax.model.losses import LossSums
from spanbert_jax.tasks.features import Features
from spanbert_jax.tasks.files.reading import files_of

Prediction = dict[str, Any]
# Stands in the "note" of a prediction that is not to be trusted.
NOT_FINITE = "the network's scores are not finite"


class Example(Protocol):
    """What one prediction is made of; a task has a frozen dataclass of its own.

    Attributes:
      id: its name in files of predictions, as text.
      where: file and line, or file and number, for messages.
      group: the document or article that it comes from: held-back parts never share one with what is trained on.
    """
    id: str
    where: str
    group: str


def place_of(example: Example) -> str:
    """Where an example stands, for counts of what was mended."""
    return f"{example.where} (id {example.id!r})"


class Task(abc.ABC):
    """Reads examples, makes features of them, gives the loss, decodes and scores.

    Attributes:
      head: the head of the network, one of `model.HEADS`; "encoder_decoder" of one that writes.
      metric: the figure of `score` by which of two networks the better is told; higher is better.
      targets: names of the columns and pieces of the features that `loss` reads.
      free: names of settings that a trained network may be used with another value of.
      settings: the task's own fields of `config.task`, with their values, and "length": pieces in a feature at most.
      facts: what the model has to remember of its training, as JSON holds it: class names, markers, thresholds.
    """
    head: ClassVar[str]
    metric: ClassVar[str]
    targets: ClassVar[tuple[str, ...]]
    free: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: Mapping[str, Any], facts: Mapping[str, Any] | None = None):
        """`facts` as a trained model has stored them; without them `learn` is to be called before `features`."""
        self.settings = {**self.defaults(), **settings}
        self.facts: dict[str, Any] = dict(facts or {})
        self.check_settings()

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The task's own fields of `config.task` and their defaults."""
        return {}

    def check_settings(self) -> None:
        """Raises UserError, naming config.task.FIELD, where a setting has no meaning."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes of a classification head, once known."""
        return tuple(self.facts.get("labels", ()))

    @abc.abstractmethod
    def read(self, path: str, faults: DataIssues, labelled: bool = True) -> Iterator[Example]:
        """Yields the examples of a file one after the other, holding no more of it in memory than it must.

        Args:
          faults: counts, with their places, what is mended, or left out of training.
          labelled: whether answers, classes and so on must be there; without it they may be.

        Raises:
          UserError: naming file, line and id: what is wrong, what is allowed, what to do.
        """

    @abc.abstractmethod
    def example(self, inputs: str | Mapping[str, Any], where: str, faults: DataIssues) -> Example:
        """An example to predict for, from what a caller gives: fields by name, or a text where one is all it takes.

        Args:
          where: stands for file and line in messages.

        Raises:
          UserError: when a field is missing or wrong.
        """

    def check(self, examples: Sequence[Example]) -> None:
        """Raises UserError where examples of several files do not go together, as by their ids in official files."""

    def learn(self, examples: Sequence[Example], tokenizer: Tokenizer) -> None:
        """Fills `facts` from the training examples."""

    @abc.abstractmethod
    def features(self, examples: Sequence[Example], tokenizer: Tokenizer, faults: DataIssues,
                 labelled: bool = True) -> Features:
        """What the network reads: one feature an example, or several, in the examples' order; pure but for `faults`.

        Args:
          labelled: whether the columns and pieces in `targets` are wanted.

        Raises:
          UserError: naming the example's place and id.
        """

    @abc.abstractmethod
    def loss(self, outputs: Outputs, batch: Mapping[str, jax.Array]) -> LossSums:
        """Sums over the targets of a batch of packed rows, traced on the device.

        Args:
          outputs: of the network, R rows of S positions, K texts a row at most: logits are [R, S, labels] or
            start_logits, end_logits [R, S] at positions, and [R, K, labels] of "sequence_classification".
          batch: "segments" [R, S], 0 for padding, k + 1 at the pieces of text k of the row; "first" [R, K], the
            position of each text's first piece; "weights" [R, K], 1 where there is a text and 0 where there is none;
            and the targets by name: columns as [R, K, ...], pieces as [R, S, ...], 0 where there is nothing.
        """

    @abc.abstractmethod
    def decode(self, examples: Sequence[Example], features: Features, outputs: Mapping[str, Any]) -> list[Prediction]:
        """The prediction of each example, in order, each with "id" and whatever JSON can hold; "note" of what is wrong.

        Args:
          features: of just these examples.
          outputs: by the names of `model.Outputs`, as NumPy arrays: of "sequence_classification" "logits" [n, labels],
            one row a feature; else [T, ...], one row a piece, laid out as `features.tokens`.
        """

    def tune(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> None:
        """Chooses by labelled examples what `decode` shall do from now on, and keeps it in `facts`."""

    @abc.abstractmethod
    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Figures of predictions against what the examples say, `metric` among them, and what they were made by."""

    def files(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, str]:
        """The predictions in the task's official formats: name of a file -> its text."""
        return {}


def read_all(task: Task, paths: str, faults: DataIssues, labelled: bool = True) -> list[Example]:
    """All examples of the files, folders and globs of a list, separated by commas.

    Raises:
      UserError: when a file is wrong, there is no example, or two have one id where that matters.
    """
    examples = [example for file in files_of(paths) for example in task.read(file, faults, labelled)]
    if not examples:
        counted = "".join(f"; {count:,} {fault}" for fault, count in faults.counts.items())
        raise UserError(f"{paths}: no example in it; is it of another format?{counted}")
    task.check(examples)
    return examples
