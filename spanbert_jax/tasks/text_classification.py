"""Texts and text pairs to a class, several classes or a number, from tables, JSON lines and the files of GLUE."""
import dataclasses
import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.settings import from_dict, require, setting
from spanbert_jax.model import Head, make_head
from spanbert_jax.model.heads import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from spanbert_jax.model.losses import LossSums, cross_entropy, weighted_sums
from spanbert_jax.tasks.features import FeatureBuilder, Features
from spanbert_jax.tasks.files import glue, reading
from spanbert_jax.tasks.files.labels import LabelReader, class_number
from spanbert_jax.tasks.metrics import classification as metrics
from spanbert_jax.tasks.protocol import Classes, FittedState, Prediction, Task, TaskSettings, softmax
from spanbert_jax.tasks.tokenizing import encode_texts
from spanbert_jax.text import PairLayout, pair_layout

_MANY_CLASSES = 20  # more than these, and than half of the examples, are probably no classes
logger = logging.getLogger("spanbert_jax")


@dataclasses.dataclass(frozen=True)
class Text(reading.Example):
    """A text or a pair of texts, and its class, classes or number if known."""
    text: str
    second: str | None
    label: Any  # str, tuple[str, ...], float or None


@dataclasses.dataclass(frozen=True)
class TextClassificationSettings(TaskSettings):
    """Settings of text classification and regression."""
    text: str = setting("text", "Column of the text.")
    second: str = setting("", "Column of the second text; '' for single texts.")
    label: str = setting("label", "Column of the label.")
    id: str = setting("", "Column of the examples' ids; '' for 'id', or line numbers without one.")
    group: str = setting("", "Column by which parts are held out; '' if examples are independent.")
    columns: tuple[str, ...] = setting((), "Column names of a table whose first line is an example.")
    regression: bool = setting(False, "Labels are numbers.")
    multi_label: bool = setting(False, "A label is any number of classes: a list in JSON, else names with commas "
                                "between them.")
    metric: str = setting("accuracy", "Metric that chooses the best checkpoint. 'f1' counts the second class; "
                          "'accuracy_f1' and 'pearson_spearman' are means of two metrics.",
                          choices=tuple(dict.fromkeys((*metrics.CLASSIFICATION, *metrics.REGRESSION,
                                                       *metrics.MULTI_LABEL))))
    glue: str = setting("", "A task of GLUE, read from its official files; it determines all fields above but group.",
                        choices=("", *glue.TASKS))
    unlabelled: str = setting("-1", "Label of examples without a label, which are left out; '' if every label is a "
                              "class.")

    def validate(self, path: str) -> None:
        super().validate(path)
        if self.glue:
            for field in dataclasses.fields(TextClassificationSettings):
                if field.name not in ("glue", "group", "length", "unlabelled"):
                    value = getattr(self, field.name)
                    require(value == field.default, f"{path}.{field.name}", value,
                            f"{path}.glue={self.glue!r} determines it; leave it at {field.default!r}")
            return
        for name in ("text", "label"):
            require(bool(getattr(self, name)), f"{path}.{name}", "", "give the name of a column")
        require(not (self.regression and self.multi_label), f"{path}.multi_label", self.multi_label,
                f"labels are numbers with {path}.regression; set one of the two")
        allowed = (metrics.REGRESSION if self.regression else
                   metrics.MULTI_LABEL if self.multi_label else metrics.CLASSIFICATION)
        require(self.metric in allowed, f"{path}.metric", self.metric,
                f"allowed with {path}.regression={self.regression} and multi_label={self.multi_label} are "
                f"{', '.join(allowed)}")
        require(len(set(self.columns)) == len(self.columns), f"{path}.columns", self.columns,
                "a name occurs twice; give each column its own")
        for name in ("text", "second", "id", "group"):
            value = getattr(self, name)
            require(not (self.columns and value) or value in self.columns, f"{path}.{name}", value,
                    f"must be one of {path}.columns={self.columns!r}")


@dataclasses.dataclass(frozen=True)
class TextClassificationState(FittedState):
    """Fitted state; `labels` are the class names, or "score" for regression."""
    # With `multi_label`, the probability of each class above which it is predicted; empty for 0.5.
    thresholds: tuple[float, ...] = ()


class TextClassification(Task[Text]):
    """Classifies texts, or predicts a number for each, from the pooled output at [CLS]."""
    Settings, Fitted = TextClassificationSettings, TextClassificationState
    head = "sequence_classification"
    label_fields = ("label", "weight")

    @property
    def _glue(self) -> glue.GlueTask | None:
        return glue.TASKS.get(self.settings.glue)

    @property
    def _source(self) -> Any:
        """The GLUE task or the settings: columns, metric, and whether labels are numbers."""
        return self._glue or self.settings

    @property
    def metric(self) -> str:
        """The metric of the settings, or of the GLUE task."""
        return self._source.metric

    def read(self, path: str, issues: DataIssues, with_labels: bool = True) -> Iterator[Text]:
        """Yields the examples of a file; labels are not checked without `with_labels`."""
        settings, task, source = self.settings, self._glue, self._source
        check = functools.partial(self._texts, issues=DataIssues())
        rows = (glue.rows(path, task, issues, with_labels, check) if task else
                reading.table(path, issues, settings.columns, check))
        ids = reading.IdReader(source.id, bool(task), with_labels)
        unlabelled = "" if settings.unlabelled in self.labels else settings.unlabelled
        labels = LabelReader(source.label, source.regression, settings.multi_label,
                                     task.labels if task else None, unlabelled)
        for location, record in rows:
            id = ids(record, location)
            label = labels(record, location, id) if with_labels else None
            if with_labels and label is None:
                issues.add(f"examples without a label (config.task.unlabelled={unlabelled!r}), left out", location)
                continue
            group = reading.name_field(record, settings.group, location) if settings.group else location
            yield Text(id, location, group, *self._texts(record, location, issues), label)

    def example(self, inputs: str | Mapping[str, Any], location: str, issues: DataIssues) -> Text:
        """From a text, or from texts by the names of their columns."""
        record = {self._source.text: inputs} if isinstance(inputs, str) else inputs
        return Text(location, location, location, *self._texts(record, location, issues), None)

    def _texts(self, record: Mapping[str, Any], location: str, issues: DataIssues) -> tuple[str, str | None]:
        texts = [reading.field(record, name, location) for name in (self._source.text, self._source.second) if name]
        for text in texts:
            if not text.strip():
                issues.add("empty texts", location)
        return texts[0], texts[1] if len(texts) > 1 else None

    def fit(self, examples: Sequence[Text], tokenizer: Tokenizer) -> Self:
        """Collects the class names, sorted or as in GLUE. Raises UserError if too few, or too many for the metric."""
        if self._source.regression:
            return self.with_fitted(labels=("score",))
        if self._glue:
            return self.with_fitted(labels=tuple(self._glue.labels))
        multi_label = self.settings.multi_label
        labels = tuple(sorted({label for example in examples for label in
                               (example.label if multi_label else [example.label])}))
        found = f"the training data ({format_plural(len(examples), 'example')}) has {len(labels)}"
        if len(labels) < (1 if multi_label else 2):
            needed = "one class is" if multi_label else "two classes are"
            raise UserError(f"at least {needed} needed, but {found} ({', '.join(labels) or 'none'}); is "
                            f"config.task.label={self.settings.label!r} the right column?")
        if (multi_label and set(map(class_number, labels)) == {0, 1}
                and all(len(example.label) == 2 for example in examples)):
            raise UserError(f"all {len(examples):,} training examples have both classes, {' and '.join(labels)}; "
                            "if labels are a 0 or 1 for each class, list the names or numbers of the right classes")
        if self.metric in metrics.OF_TWO_CLASSES and len(labels) > 2:
            raise UserError(f"config.task.metric={self.metric!r} is defined for two classes, but {found}; use another "
                            "metric, such as macro_f1")
        if len(labels) > max(_MANY_CLASSES, len(examples) / 2):
            logger.warning("%s classes: is config.task.label=%r the right column?", found, self.settings.label)
        return self.with_fitted(labels=labels)

    def features(self, examples: Sequence[Text], tokenizer: Tokenizer, issues: DataIssues,
                 with_labels: bool = True) -> Features:
        """One feature per example: [CLS] text [SEP], or [CLS] text [SEP] second [SEP] with token types 0 and 1; a pair
        has the special tokens and types that the tokenizer gives it.

        A text that is too long is truncated at the end; a pair loses tokens one by one at the end of the longer text,
        or of the second if both are equally long, as in the reference. Text that spells a special token is ordinary
        text.

        Columns: "label", int32 index of the class, or float32: the number, or 1 for each class that holds and 0 for the
        others; "weight" float32, 0 for unknown classes.
        """
        layout, length, builder = pair_layout(tokenizer), self.settings.length, FeatureBuilder()
        indices = {label: index for index, label in enumerate(self.labels)}
        # Of a longer text, no more tokens can be kept, nor decide which ones are.
        firsts = encode_texts([example.text for example in examples], tokenizer, length)
        seconds = encode_texts([example.second for example in examples if example.second is not None], tokenizer,
                               length)
        for number, (example, first) in enumerate(zip(examples, firsts, strict=True)):
            second = None if example.second is None else next(seconds).ids
            tokens, types, truncated = _assemble(first.ids[:length], second and second[:length], layout, length)
            if truncated:
                issues.add("texts longer than config.task.length, truncated at the end", example.location)
            builder.add(number, tokens, types, self._target(example, indices, issues) if with_labels else None)
        dtypes = {"label": np.int32 if self._problem_type == SINGLE_LABEL else np.float32, "weight": np.float32}
        return builder.build(dtypes if with_labels else None)

    def _target(self, example: Text, indices: Mapping[str, int], issues: DataIssues) -> dict[str, Any]:
        if self._source.regression:
            return {"label": example.label, "weight": 1.0}
        names = example.label if self.settings.multi_label else [example.label]
        for unknown in (name for name in names if name not in indices):
            issues.add("examples of classes without training examples, left out of the loss and counted as wrong",
                       f"{example.location} (id {example.id}, class {unknown})")
        known = [indices[name] for name in names if name in indices]
        if self.settings.multi_label:
            return {"label": np.isin(np.arange(len(indices)), known), "weight": float(len(known) == len(names))}
        return {"label": known[0], "weight": 1.0} if known else {"label": 0, "weight": 0.0}

    @classmethod
    def of_head(cls, head: Head, length: int, settings: Mapping[str, Any]) -> Self:
        """What the labels stand for is the problem type of the model's config; without one, or with a single label, as
        transformers' pipeline takes it: the probability of a single label, or one of several labels."""
        kind = head.problem_type or (REGRESSION if settings.get("regression") else SINGLE_LABEL)
        if kind == SINGLE_LABEL and len(head.labels) == 1:
            kind = MULTI_LABEL
        if len(set(head.labels)) < len(head.labels):
            raise UserError(f"the config's id2label gives several classes one name ({', '.join(head.labels)[:80]}); "
                            "give each its own name there")
        kinds: dict[str, dict[str, Any]] = {REGRESSION: {"regression": True, "metric": "pearson_spearman"},
                                            MULTI_LABEL: {"multi_label": True}}
        given = {"length": length, **kinds.get(kind, {}), **settings}
        task = cls(from_dict(cls.Settings, given, "config.task"), cls.Fitted(labels=head.labels))
        if task.settings.regression and len(head.labels) > 1:
            raise UserError(f"a regression of {len(head.labels)} numbers; only one number can be predicted")
        return task

    def make_head(self) -> Head:
        """The head, whose problem type tells other libraries what the logits stand for."""
        return make_head(self.head, self.labels, self._problem_type)

    @property
    def _problem_type(self) -> str:
        if self._source.regression:
            return REGRESSION
        return MULTI_LABEL if self.settings.multi_label else SINGLE_LABEL

    def loss(self, outputs: Any, batch: Mapping[str, jax.Array]) -> LossSums:
        """Cross-entropy over the classes; with several labels the mean of that of each class alone; or squared error,
        for which `correct` is None."""
        weights = batch["weights"].astype(jnp.float32) * batch["weight"]
        if self._source.regression:
            losses, correct = jnp.square(outputs.logits[..., 0] - batch["label"]), None
        elif self.settings.multi_label:
            losses = optax.losses.sigmoid_binary_cross_entropy(outputs.logits, batch["label"]).mean(axis=-1)
            correct = jnp.all((outputs.logits > 0) == (batch["label"] > 0), axis=-1).astype(jnp.float32)
        else:
            losses, correct = cross_entropy(outputs.logits, batch["label"])
        return weighted_sums(losses, correct, weights)

    def decode(self, examples: Sequence[Text], features: Features, outputs: Mapping[str, Any]) -> list[Prediction]:
        """"label", the most likely class, "score", its probability, and "scores" of all classes; with several labels
        "labels", those above their thresholds, and "scores"; for regression "value"."""
        logits = np.asarray(outputs["logits"], np.float64)
        if self._source.regression:
            return [{"id": example.id, "value": value}
                    for example, value in zip(examples, logits[:, 0].tolist(), strict=True)]
        if self.settings.multi_label:
            names, scores = np.array(self.labels), np.exp(-np.logaddexp(0, -logits))  # sigmoid
            above = scores > np.array(self.fitted.thresholds or 0.5)
            return [{"id": example.id, "labels": names[chosen].tolist(), "scores": dict(zip(self.labels, row.tolist()))}
                    for example, chosen, row in zip(examples, above, scores, strict=True)]
        labels, likeliest, probabilities = self.labels, logits.argmax(axis=-1).tolist(), softmax(logits)
        return [{"id": example.id, "label": labels[best], "score": row[best], "scores": dict(zip(labels, row))}
                for example, best, row in zip(examples, likeliest, probabilities.tolist(), strict=True)]

    def tune(self, examples: Sequence[Text], predictions: Sequence[Prediction]) -> Self:
        """With several labels: finds each label's threshold of the best F1."""
        if not self.settings.multi_label:
            return self
        return self.with_fitted(thresholds=tuple(
            metrics.best_threshold(np.array([label in example.label for example in examples]),
                                   np.array([prediction["scores"][label] for prediction in predictions]))
            for label in self.labels))

    def score(self, examples: Sequence[Text], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Metrics of `metrics.classification`, times 100; classes without training examples count as wrong."""
        answers = [example.label for example in examples]
        if self._source.regression:
            return metrics.regression_metrics(answers, [prediction["value"] for prediction in predictions])
        if self.settings.multi_label:
            return metrics.multi_label_metrics(answers, [prediction["labels"] for prediction in predictions])
        return metrics.classification_metrics(answers, [prediction["label"] for prediction in predictions], self.labels)

    def classes(self, examples: Sequence[Text], predictions: Sequence[Prediction]) -> Classes | None:
        """The class or classes of each example; None where it has a number."""
        if self._source.regression:
            return None
        name = "labels" if self.settings.multi_label else "label"
        return Classes("example", [example.label for example in examples],
                       [prediction[name] for prediction in predictions])

    def files(self, examples: Sequence[Text], predictions: Sequence[Prediction]) -> dict[str, str]:
        """The submission files of GLUE; none for other tasks."""
        return glue.submission(self._glue, examples, predictions) if self._glue else {}

    @property
    def has_official_format(self) -> bool:
        return self._glue is not None


def _assemble(first: list[int], second: list[int] | None, layout: PairLayout,
              length: int) -> tuple[list[int], list[int], bool]:
    """At most `length` tokens with [CLS] and [SEP], their types, and whether the texts were truncated."""
    room = length - (2 if second is None else layout.size)
    if room < 1:
        raise UserError(f"config.task.length={length}: too short for [CLS], [SEP] and a token; use a larger length")
    if second is None:
        tokens = [layout.cls, *first[:room], layout.sep]
        return tokens, [0] * len(tokens), len(first) > room
    kept, kept_second = _truncated_lengths(len(first), len(second), room)
    tokens = layout.tokens(first[:kept], second[:kept_second])
    return tokens, layout.types(kept, kept_second), len(first) + len(second) > room


def _truncated_lengths(first: int, second: int, room: int) -> tuple[int, int]:
    """Lengths of two texts after truncation; see `TextClassification.features`."""
    excess = max(first + second - room, 0)
    of_longer = min(excess, abs(first - second))  # until both are equally long; then alternately, the second first
    shared = excess - of_longer
    first -= (of_longer if first > second else 0) + shared // 2
    return first, min(first + second, room) - first
