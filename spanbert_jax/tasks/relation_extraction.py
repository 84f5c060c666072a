"""Relation extraction: the relation between two entities of a sentence, as in TACRED and SemEval-2010 Task 8."""
import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.settings import setting
from spanbert_jax.model.losses import LossSums, cross_entropy, weighted_sums
from spanbert_jax.tasks import entity_marking as marking
from spanbert_jax.tasks.entity_marking import MARKERS, MARKINGS
from spanbert_jax.tasks.features import FeatureBuilder, Features
from spanbert_jax.tasks.files.reading import describe_location
from spanbert_jax.tasks.files.relations import FORMATS, Relation, parse_relation, read_relations, tagged
from spanbert_jax.tasks.metrics import relations as metrics
from spanbert_jax.tasks.protocol import Classes, FittedState, Prediction, Task, TaskSettings, softmax
from spanbert_jax.tasks.tokenizing import tokenize_words
from spanbert_jax.text import special_ids

SCORINGS = {"micro": metrics.micro_metrics, "semeval": metrics.semeval_metrics}
_NEGATIVES = ("no_relation", "NA", "Other")
_AUTO = "auto"
_N_BEST = 5
_SHORTEST = 8  # tokens: [CLS], [SEP] and the entities


@dataclasses.dataclass(frozen=True)
class RelationExtractionSettings(TaskSettings):
    """Settings of relation extraction."""
    length: int = setting(128, "Maximum number of tokens per feature, special tokens included.", minimum=_SHORTEST)
    format: str = setting("auto", "File format; 'auto' detects it from the beginning of a file.", choices=FORMATS)
    marking: str = setting("ner", "How entities are marked (see entity_marking.mark); 'text' for entities without "
                           "types.", choices=MARKINGS)
    markers: str = setting("unused", "Marker tokens: [unused] entries of the vocabulary, or words.", choices=MARKERS)
    negative: str = setting(_AUTO, "Name of the relation 'none', which f1 does not count; '' if there is none; 'auto' "
                            "for the first of no_relation, NA and Other that occurs in training.")
    probabilities: bool = setting(False, "List the probabilities of all relations, not only of the five most likely.",
                                  overridable=True)
    scoring: str = setting("micro", "F1 of TACRED ('micro') or of SemEval-2010 Task 8 ('semeval').",
                           choices=tuple(SCORINGS))


@dataclasses.dataclass(frozen=True)
class RelationExtractionState(FittedState):
    """Fitted state; `labels` are the names of the relations, the negative one first, the others by frequency."""
    negative: str | None = None  # name of the negative relation, "" if there is none; None before `fit`
    # The marker tokens or words by name. The reference loses its markers when training ends.
    markers: Mapping[str, str] = dataclasses.field(default_factory=dict)


class RelationExtraction(Task[Relation]):
    """Classifies a sentence with two marked entities from the pooled output at [CLS]."""
    Settings, Fitted = RelationExtractionSettings, RelationExtractionState
    head = "sequence_classification"
    metric = "f1"
    label_fields = ("label", "weight")

    def read(self, path: str, issues: DataIssues, with_labels: bool = True) -> Iterator[Relation]:
        return read_relations(path, self.settings.format, issues, with_labels)

    def example(self, inputs: str | Mapping[str, Any], location: str, issues: DataIssues) -> Relation:
        """From a sentence with <e1>, </e1>, <e2> and </e2> around subject and object, or a record as in files: of
        TACRED, of OpenNRE, or {"text", "subject", "object"}; see `files.relations.located`."""
        if isinstance(inputs, str):
            return tagged(inputs, location, location)
        return parse_relation({**inputs, "id": location}, location, False)

    def fit(self, examples: Sequence[Relation], tokenizer: Tokenizer) -> Self:
        """Finds the relations and chooses the markers.

        Raises UserError if there are fewer than two relations, the negative one does not occur, entities lack the types
        that the marking shows, or the vocabulary lacks tokens for the markers.
        """
        counts = Counter(example.relation or "" for example in examples)
        if len(counts) < 2:
            raise UserError("at least two relations are needed, but the training data "
                            f"({format_plural(len(examples), 'example')}) has {len(counts)}"
                            f"{''.join(f' ({name})' for name in counts)}; give more examples")
        negative = self._negative(counts)
        names = sorted(counts, key=lambda name: (name != negative, -counts[name], name))
        scheme = self.settings.marking
        untyped = next((one for one in examples if not (one.subject_type and one.object_type)), None)
        if marking.uses_types(scheme) and untyped:
            raise UserError(f"{untyped.location}: id {untyped.id!r} has entities without types, but "
                            f"config.task.marking={scheme!r} shows types; set it to 'text'")
        markers = marking.assign_markers(marking.marker_names(examples, scheme), tokenizer, self.settings.markers)
        return self.with_fitted(labels=tuple(names), negative=negative, markers=markers)

    def _negative(self, counts: Counter[str]) -> str:
        wanted = self.settings.negative
        if wanted == _AUTO:
            return next((name for name in _NEGATIVES if name in counts), "")
        if wanted and wanted not in counts:
            raise UserError(f"config.task.negative={wanted!r}: no training example has this relation; there are "
                            f"{', '.join(sorted(counts))}"[:280] + "; give one of them, or ''")
        return wanted

    def features(self, examples: Sequence[Relation], tokenizer: Tokenizer, issues: DataIssues,
                 with_labels: bool = True) -> Features:
        """One feature per example: [CLS], the sentence marked by `entity_marking.mark`, [SEP]; token types are all 0.

        Columns: "label", int32 index of the relation; "weight" float32, 0 for unknown relations.
        """
        special, builder = special_ids(tokenizer), FeatureBuilder()
        markers = marking.marker_ids(self.fitted.markers, tokenizer)
        words = tokenize_words((word for example in examples for word in example.tokens), tokenizer)
        indices = {name: index for index, name in enumerate(self.labels)}
        for number, example in enumerate(examples):
            marked = marking.mark(self._with_known_types(example, issues), self.settings.marking, words, markers,
                                  special.sep)
            tokens, issue = marking.shorten(marked, special, self.settings.length)
            if issue:
                issues.add(issue, describe_location(example))
            columns = self._target(example, indices, issues) if with_labels else None
            builder.add(number, tokens, np.zeros(len(tokens)), columns)
        return builder.build({"label": np.int32, "weight": np.float32} if with_labels else None)

    def _with_known_types(self, example: Relation, issues: DataIssues) -> Relation:
        """The example with types that do not occur in training replaced by UNKNOWN."""
        if not marking.uses_types(self.settings.marking):
            return example
        known = self.fitted.markers
        changed: dict[str, Any] = {}
        for role, field in (("SUBJ", "subject_type"), ("OBJ", "object_type")):
            kind = getattr(example, field)
            if f"{role}={kind}" not in known:
                issues.add("entity types without training examples, marked as unknown",
                           f"{example.location} (id {example.id}, {role}={kind})")
                changed[field] = marking.UNKNOWN
        return dataclasses.replace(example, **changed) if changed else example

    def _target(self, example: Relation, indices: Mapping[str, int], issues: DataIssues) -> dict[str, float]:
        if (index := indices.get(example.relation or "")) is not None:
            return {"label": index, "weight": 1.0}
        issues.add("relations without training examples, left out of the loss and counted as wrong",
                   f"{example.location} (id {example.id}, {example.relation})")
        return {"label": 0, "weight": 0.0}

    def loss(self, outputs: Any, batch: Mapping[str, jax.Array]) -> LossSums:
        """Cross-entropy over the relations."""
        weights = batch["weights"].astype(jnp.float32) * batch["weight"]
        return weighted_sums(*cross_entropy(outputs.logits, batch["label"]), weights)

    def decode(self, examples: Sequence[Relation], features: Features, outputs: Mapping[str, Any]) -> list[Prediction]:
        """{"id", "relation", "score", "scores", "subject", "object"}: the most likely relation, its probability, those
        of the five most likely or, with `settings.probabilities`, of all, and text and characters of the entities, as
        from `Relation.entities`."""
        logits = np.asarray(outputs["logits"], np.float64)
        best = np.argsort(-logits, axis=-1, kind="stable")
        best = best if self.settings.probabilities else best[:, :_N_BEST]
        predictions = []
        for example, order, row in zip(examples, best.tolist(), softmax(logits), strict=True):
            scores = {self.labels[index]: float(row[index]) for index in order}
            predictions.append({"id": example.id, "relation": self.labels[order[0]], "score": float(row[order[0]]),
                                "scores": scores, **example.entities()})
        return predictions

    def score(self, examples: Sequence[Relation], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Metrics of `metrics.relations`, in percent; relations without training examples count as missed."""
        return SCORINGS[self.settings.scoring](
            [example.relation or "" for example in examples], [prediction["relation"] for prediction in predictions],
            self.fitted.negative)

    def classes(self, examples: Sequence[Relation], predictions: Sequence[Prediction]) -> Classes:
        """The relation of each example."""
        return Classes("example", [example.relation or "" for example in examples],
                       [prediction["relation"] for prediction in predictions])

    def files(self, examples: Sequence[Relation], predictions: Sequence[Prediction]) -> dict[str, str]:
        """"predictions.txt": id and relation per line, as the reference writes and SemEval's scorer reads."""
        lines = [f"{prediction['id']}\t{prediction['relation']}\n" for prediction in predictions]
        return {"predictions.txt": "".join(lines)}
