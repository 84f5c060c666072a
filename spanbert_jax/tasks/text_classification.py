"""Classes or numbers for texts and pairs of texts, from tables, JSON lines and the files of GLUE."""
from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.model import Outputs
from spanbert_jax.model.losses import LossSums, cross_entropy, weighted_sums
from spanbert_jax.tasks.features import FeatureList, Features
from spanbert_jax.tasks.files import glue, reading
from spanbert_jax.tasks.metrics import classification as metrics
from spanbert_jax.tasks.protocol import Prediction, Task
from spanbert_jax.text import SpecialIds, special_ids, special_tokens_as_text

_BATCH = 1024  # texts that are tokenised at once: what comes of them takes a hundred bytes a piece


@dataclasses.dataclass(frozen=True)
class Text:
    """A text or two, and its class or number where it is known; see `protocol.Example`."""
    id: str
    where: str
    group: str
    text: str
    second: str | None
    label: str | float | None


class TextClassification(Task):
    """Classifies texts, or gives each a number, by the pooled output at [CLS].

    Facts: "labels", names of the classes, or "score" alone for numbers.
    """
    head = "sequence_classification"
    targets = ("label", "weight")

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Fields of `config.task`.

        text, second, label: names of the columns; `second` is "" where there is one text.
        id: column of the names of examples; "" for line numbers.
        group: column by which held-back parts are made; "" where every example stands on its own.
        columns: their names, for a table whose first line does not give them.
        regression: whether labels are numbers.
        metric: by which the better of two networks is told: one of `metrics.CLASSIFICATION` or `metrics.REGRESSION`.
        glue: a task of `files.glue.TASKS`, or ""; it settles all of the above but `group`, and files are the official
          ones.
        """
        return {"text": "text", "second": "", "label": "label", "id": "", "group": "", "columns": (),
                "regression": False, "metric": "accuracy", "glue": ""}

    def check_settings(self) -> None:
        settings = self.settings
        if settings["glue"] not in ("", *glue.TASKS):
            raise UserError(f"config.task.glue is {settings['glue']!r}: allowed are {', '.join(glue.TASKS)}, or ''")
        if self._glue:
            self._check_glue_alone()
            return
        for field in ("text", "label"):
            if not settings[field]:
                raise UserError(f"config.task.{field} is empty: give the name of a column")
        allowed = metrics.REGRESSION if settings["regression"] else metrics.CLASSIFICATION
        if settings["metric"] not in allowed:
            raise UserError(f"config.task.metric is {settings['metric']!r}: allowed with config.task.regression="
                            f"{settings['regression']} are {', '.join(allowed)}")
        columns = list(settings["columns"])
        if len(set(columns)) < len(columns):
            raise UserError(f"config.task.columns has a name twice ({', '.join(columns)}): give each column its own")
        for field in ("text", "second", "id", "group"):
            if columns and settings[field] and settings[field] not in columns:
                raise UserError(f"config.task.{field} is {settings[field]!r}, which is not one of config.task.columns: "
                                f"{tuple(columns)}")

    def _check_glue_alone(self) -> None:
        for field, default in self.defaults().items():
            value = self.settings[field]
            value = tuple(value) if field == "columns" else value
            if field not in ("glue", "group") and value != default:
                raise UserError(f"config.task.{field} is {value!r}, but config.task.glue={self.settings['glue']!r} "
                                f"settles it; leave it at {default!r}")

    @property
    def _glue(self) -> glue.GlueTask | None:
        return glue.TASKS.get(self.settings["glue"])

    @property
    def _regression(self) -> bool:
        return self._glue.regression if self._glue else self.settings["regression"]

    @property
    def metric(self) -> str:
        """As the settings have it, or as the task of GLUE."""
        return self._glue.metric if self._glue else self.settings["metric"]

    def read(self, path: str, faults: DataIssues, labelled: bool = True) -> Iterator[Text]:
        """Yields the examples of a file; without `labelled`, whatever its labels are, they are not looked at."""
        settings, task = self.settings, self._glue
        rows = glue.rows(path, task, faults, labelled) if task else reading.table(path, faults, settings["columns"])
        text, second, label = self._columns
        ids = reading.Ids(task.id if task else settings["id"], bool(task), labelled)
        labels = _Labels(label, self._regression, task)
        for where, record in rows:
            id = ids(record, where)
            group = reading.name_field(record, settings["group"], where) if settings["group"] else where
            yield Text(id, where, group, _text(record, text, where, faults),
                       _text(record, second, where, faults) if second else None,
                       labels(record, where, id) if labelled else None)

    def example(self, inputs: str | Mapping[str, Any], where: str, faults: DataIssues) -> Text:
        """Of a text, or of texts under the names that their columns have in the task's files."""
        text, second, _ = self._columns
        record = {text: inputs} if isinstance(inputs, str) else inputs
        return Text(where, where, where, _text(record, text, where, faults),
                    _text(record, second, where, faults) if second else None, None)

    @property
    def _columns(self) -> tuple[str, str, str]:
        """The names of the columns of texts and labels."""
        source = vars(self._glue) if self._glue else self.settings
        return source["text"], source["second"], source["label"]

    def learn(self, examples: Sequence[Text], tokenizer: Tokenizer) -> None:
        """Stores the names of the classes: sorted, or in the fixed order of GLUE.

        Raises:
          UserError: when there are fewer than two, or more than the metric is for.
        """
        if self._regression:
            self.facts["labels"] = ["score"]
        elif self._glue:
            self.facts["labels"] = list(self._glue.labels)
        else:
            self.facts["labels"] = sorted({example.label for example in examples})
            self._check_labels(len(examples))

    def _check_labels(self, count: int) -> None:
        found = f"in {count:,} training examples there are {len(self.labels)}"
        if len(self.labels) < 2:
            raise UserError(f"two classes at least are needed, and {found} ({', '.join(self.labels) or 'none'}); is "
                            f"{self.settings['label']!r} the column for config.task.label?")
        if self.metric in metrics.OF_TWO_CLASSES and len(self.labels) > 2:
            raise UserError(f"config.task.metric {self.metric!r} is for two classes, and {found}; take "
                            "another, such as macro_f1")

    def features(self, examples: Sequence[Text], tokenizer: Tokenizer, faults: DataIssues,
                 labelled: bool = True) -> Features:
        """One feature an example: [CLS] text [SEP], or [CLS] text [SEP] second [SEP] with types 0 and 1.

        Of a text that is too long the end is cut; a pair loses pieces one at a time at the end of the longer one, or of
        the second where both are as long, as in the reference. What text spells like a special piece is text.

        Columns: "label", int32, the index of the class, or float32; "weight" float32, 0 where the class is not known.
        """
        special, length, made = special_ids(tokenizer), self.settings["length"], FeatureList()
        tokenizer = special_tokens_as_text(tokenizer)
        indices = {label: index for index, label in enumerate(self.labels)}
        for start in range(0, len(examples), _BATCH):
            batch = examples[start:start + _BATCH]
            firsts = _encode(tokenizer, [example.text for example in batch])
            seconds = iter(_encode(tokenizer, [example.second for example in batch if example.second is not None]))
            for offset, (example, first) in enumerate(zip(batch, firsts, strict=True)):
                second = None if example.second is None else next(seconds)
                tokens, types, cut = _assemble(first, second, special, length)
                if cut:
                    faults.add("texts longer than config.task.length, cut at the end", example.where)
                made.add(start + offset, tokens, types, self._target(example, indices, faults) if labelled else None)
        dtypes = {"label": np.float32 if self._regression else np.int32, "weight": np.float32}
        return made.features(dtypes if labelled else None)

    def _target(self, example: Text, indices: Mapping[str, int], faults: DataIssues) -> dict[str, float]:
        if self._regression or example.label in indices:
            return {"label": example.label if self._regression else indices[example.label], "weight": 1.0}
        faults.add("examples of a class that was not trained on, left out of the loss and never right",
                   f"{example.where} (id {example.id}, class {example.label})")
        return {"label": 0, "weight": 0.0}

    def loss(self, outputs: Outputs, batch: Mapping[str, jax.Array]) -> LossSums:
        """Cross-entropy over the classes, or the squared error of a number, for which there is no `correct`."""
        weights = batch["weights"].astype(jnp.float32) * batch["weight"]
        if self._regression:
            losses, correct = jnp.square(outputs.logits[..., 0] - batch["label"]), None
        else:
            losses, correct = cross_entropy(outputs.logits, batch["label"])
        return weighted_sums(losses, correct, weights)

    def decode(self, examples: Sequence[Text], features: Features, outputs: Mapping[str, Any]) -> list[Prediction]:
        """The likeliest class, its probability, and those of all: "label", "score", "scores"; or a number: "value"."""
        logits = np.asarray(outputs["logits"], np.float64)
        if self._regression:
            return [{"id": example.id, "value": value}
                    for example, value in zip(examples, logits[:, 0].tolist(), strict=True)]
        odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities = odds / odds.sum(axis=-1, keepdims=True)
        labels, likeliest = self.labels, logits.argmax(axis=-1).tolist()
        return [{"id": example.id, "label": labels[best], "score": row[best], "scores": dict(zip(labels, row))}
                for example, best, row in zip(examples, likeliest, probabilities.tolist(), strict=True)]

    def score(self, examples: Sequence[Text], predictions: Sequence[Prediction]) -> dict[str, float]:
        """As `metrics.classification` has it, all times 100; a class that was not trained on is always missed."""
        answers = [example.label for example in examples]
        if self._regression:
            return metrics.regression_figures(answers, [prediction["value"] for prediction in predictions])
        return metrics.classification_figures(answers, [prediction["label"] for prediction in predictions], self.labels)

    def files(self, examples: Sequence[Text], predictions: Sequence[Prediction]) -> dict[str, str]:
        """What the GLUE board takes; nothing for other tasks."""
        return glue.submission(self._glue, examples, predictions) if self._glue else {}


def _assemble(first: list[int], second: list[int] | None, special: SpecialIds,
              length: int) -> tuple[list[int], list[int], bool]:
    """Pieces and their types with [CLS] and [SEP], `length` at most, and whether any were cut."""
    room = length - (2 if second is None else 3)
    if room < 1:
        raise UserError(f"config.task.length is {length}: too few for [CLS], [SEP] and a piece; give it more")
    if second is None:
        tokens = [special.cls, *first[:room], special.sep]
        return tokens, [0] * len(tokens), len(first) > room
    kept, kept_second = _fit(len(first), len(second), room)
    tokens = [special.cls, *first[:kept], special.sep, *second[:kept_second], special.sep]
    return tokens, [0] * (kept + 2) + [1] * (kept_second + 1), len(first) + len(second) > room


def _fit(first: int, second: int, room: int) -> tuple[int, int]:
    """How many pieces of each of two texts are kept; see `TextClassification.features`."""
    excess = max(first + second - room, 0)
    of_longer = min(excess, abs(first - second))  # until both are as long; the rest is shared, the second losing first
    shared = excess - of_longer
    first -= (of_longer if first > second else 0) + shared // 2
    return first, min(first + second, room) - first


def _encode(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]


def _text(record: dict[str, Any], column: str, where: str, faults: DataIssues) -> str:
    text = reading.field(record, column, where)
    if not text.strip():
        faults.add("empty texts", where)
    return text


class _Labels:
    """Labels of the examples of a file, all of them written in the same way."""

    def __init__(self, column: str, regression: bool, task: glue.GlueTask | None):
        self._column, self._regression, self._task = column, regression, task
        self._kind, self._first = "", ""

    def __call__(self, record: dict[str, Any], where: str, id: str) -> str | float:
        value, place = record.get(self._column), f"{where}: id {id!r}"
        if value is None or isinstance(value, str) and not value.strip():
            raise UserError(f"{place} has no label: column {self._column!r} is "
                            f"{'empty' if self._column in record else 'missing'}; fill it in, or name "
                            "the right column in config.task.label")
        kind = _kind(value)
        if kind != self._kind and self._kind:
            raise UserError(f"{place}: label {_short(value)} is a {kind}, where that of {self._first} is a "
                            f"{self._kind}; write all labels of a file in the same way")
        self._kind, self._first = kind, self._first or where
        return self._number(value, place) if self._regression else self._class(value, place)

    def _number(self, value: Any, place: str) -> float:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"{place}: label {_short(value)} is not a number, which config.task.regression asks for")
        return number

    def _class(self, value: Any, place: str) -> str:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, (str, int)):
            raise UserError(f"{place}: label {_short(value)} is not the name or number of a class; write a text or a "
                            "whole number, or set config.task.regression")
        name = value if isinstance(value, str) else json.dumps(value)
        if self._task and name not in self._task.labels:
            raise UserError(f"{place}: label {_short(name)} in column {self._column!r}: allowed are "
                            f"{', '.join(self._task.labels)}")
        return name


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "truth value"
    return "number" if isinstance(value, (int, float)) else "text" if isinstance(value, str) else type(value).__name__


def _short(value: Any) -> str:
    return repr(value)[:80]
