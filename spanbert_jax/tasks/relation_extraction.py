"""Which relation holds between two entities of a sentence, as TACRED and SemEval-2010 Task 8 ask."""
from __future__ import annotations

import dataclasses
from collections import Counter
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
from spanbert_jax.tasks import entity_marking as marking
from spanbert_jax.tasks.features import FeatureList, Features
from spanbert_jax.tasks.files.relations import FORMATS, Relation, located, read_relations, relation_of, tagged
from spanbert_jax.tasks.metrics import relations as metrics
from spanbert_jax.tasks.protocol import Prediction, Task, place_of
from spanbert_jax.tasks.word_tokens import word_pieces
from spanbert_jax.text import special_ids

SCORINGS = {"micro": metrics.micro_figures, "semeval": metrics.semeval_figures}
_ALLOWED = {"format": FORMATS, "marking": marking.MARKINGS, "markers": marking.MARKERS, "scoring": tuple(SCORINGS)}
_NEGATIVES = ("no_relation", "NA", "Other")
_AUTO = "auto"
_BEST = 5
_SHORTEST = 8


class RelationExtraction(Task):
    """Classifies a sentence with two marked entities by the pooled output at [CLS].

    Facts: "labels", names of the relations, the negative one first and the others by frequency; "negative", its name,
    or "" where there is none; "markers", name of a marker -> the piece or words that stand for it. The reference loses
    its markers when training ends.
    """
    head = "sequence_classification"
    metric = "f1"
    targets = ("label", "weight")

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Fields of `config.task`.

        format: of the files: "tacred", "semeval", or "auto", by what a file begins with.
        marking: how entities are marked, one of `entity_marking.MARKINGS`; "text" where entities have no types.
        markers: what marks them, "unused" pieces of the vocabulary or "words" of it.
        negative: the relation that says that there is none, which `f1` does not count; "" if no name does; "auto" for
          the first of no_relation, NA and Other that occurs in training.
        scoring: "micro" for the F1 of TACRED, "semeval" for that of SemEval-2010 Task 8.
        """
        return {"format": "auto", "marking": "ner", "markers": "unused", "negative": _AUTO, "scoring": "micro"}

    def check_settings(self) -> None:
        for field, allowed in _ALLOWED.items():
            if self.settings[field] not in allowed:
                raise UserError(f"config.task.{field} is {self.settings[field]!r}: allowed are {', '.join(allowed)}")
        if self.settings.get("length", _SHORTEST) < _SHORTEST:
            raise UserError(f"config.task.length is {self.settings['length']}: at least {_SHORTEST} are needed, for "
                            "[CLS], [SEP] and the entities")

    def read(self, path: str, faults: DataIssues, labelled: bool = True) -> Iterator[Relation]:
        """Yields the relations of a file, as `files.relations.read_relations` has it."""
        return read_relations(path, self.settings["format"], faults, labelled)

    def example(self, inputs: str | Mapping[str, Any], where: str, faults: DataIssues) -> Relation:
        """Of a sentence with <e1>, </e1>, <e2> and </e2> around subject and object; of a record of TACRED; or of
        {"text", "subject", "object"}, as `files.relations.located` has it."""
        if isinstance(inputs, str):
            return tagged(inputs, where, where)
        return relation_of({**inputs, "id": where}, where, False) if "token" in inputs else located(inputs, where)

    def learn(self, examples: Sequence[Relation], tokenizer: Tokenizer) -> None:
        """Stores relations and markers.

        Raises:
          UserError: when there are fewer than two relations, the negative one does not occur, entities lack the types
            that the marking shows, or the vocabulary lacks pieces for the markers.
        """
        counts = Counter(example.relation for example in examples)
        if len(counts) < 2:
            raise UserError(f"at least two relations are needed, and {len(examples):,} training examples have "
                            f"{len(counts)}{''.join(f' ({name})' for name in counts)}; give more examples")
        negative = self._negative(counts)
        names = sorted(counts, key=lambda name: (name != negative, -counts[name], name))
        self.facts |= {"labels": names, "negative": negative, "markers": self._markers(examples, tokenizer)}

    def _negative(self, counts: Counter[str]) -> str:
        wanted = self.settings["negative"]
        if wanted == _AUTO:
            return next((name for name in _NEGATIVES if name in counts), "")
        if wanted and wanted not in counts:
            raise UserError(f"config.task.negative is {wanted!r}, which no training example has; there are "
                            f"{', '.join(sorted(counts))}"[:280] + "; give one of them, or ''")
        return wanted

    def _markers(self, examples: Sequence[Relation], tokenizer: Tokenizer) -> dict[str, str]:
        way = self.settings["marking"]
        untyped = next((one for one in examples if not (one.subject_type and one.object_type)), None)
        if marking.uses_types(way) and untyped:
            raise UserError(f"{untyped.where}: id {untyped.id!r} has entities without types, which config.task.marking "
                            f"{way!r} shows; set it to 'text'")
        return marking.assign_markers(marking.marker_names(examples, way), tokenizer, self.settings["markers"])

    def features(self, examples: Sequence[Relation], tokenizer: Tokenizer, faults: DataIssues,
                 labelled: bool = True) -> Features:
        """One feature an example: [CLS], the marked sentence as `entity_marking` has it, [SEP]; types are all 0.

        Columns: "label", int32, index of the relation; "weight" float32, 0 where it was not trained on.
        """
        special, made = special_ids(tokenizer), FeatureList()
        markers = marking.marker_ids(self.facts["markers"], tokenizer)
        words = word_pieces((word for example in examples for word in example.tokens), tokenizer)
        indices = {name: index for index, name in enumerate(self.labels)}
        for number, example in enumerate(examples):
            marked = marking.mark(self._with_known_types(example, faults), self.settings["marking"], words, markers,
                                  special.sep)
            tokens, fault = marking.fit(marked, special, self.settings["length"])
            if fault:
                faults.add(fault, place_of(example))
            columns = self._target(example, indices, faults) if labelled else None
            made.add(number, tokens, np.zeros(len(tokens)), columns)
        return made.features({"label": np.int32, "weight": np.float32} if labelled else None)

    def _with_known_types(self, example: Relation, faults: DataIssues) -> Relation:
        """The example, with types that were not seen in training replaced by the one that stands for them."""
        if not marking.uses_types(self.settings["marking"]):
            return example
        known, changed = self.facts["markers"], {}
        for role, field in (("SUBJ", "subject_type"), ("OBJ", "object_type")):
            kind = getattr(example, field)
            if f"{role}={kind}" not in known:
                faults.add("types of entities that were not trained on, marked as unknown",
                           f"{example.where} (id {example.id}, {role}={kind})")
                changed[field] = marking.UNKNOWN
        return dataclasses.replace(example, **changed) if changed else example

    def _target(self, example: Relation, indices: Mapping[str, int], faults: DataIssues) -> dict[str, float]:
        if example.relation in indices:
            return {"label": indices[example.relation], "weight": 1.0}
        faults.add("relations that were not trained on, left out of the loss and never right",
                   f"{example.where} (id {example.id}, {example.relation})")
        return {"label": 0, "weight": 0.0}

    def loss(self, outputs: Outputs, batch: Mapping[str, jax.Array]) -> LossSums:
        """Cross-entropy over the relations."""
        weights = batch["weights"].astype(jnp.float32) * batch["weight"]
        return weighted_sums(*cross_entropy(outputs.logits, batch["label"]), weights)

    def decode(self, examples: Sequence[Relation], features: Features,
               outputs: Mapping[str, Any]) -> list[Prediction]:
        """{"id", "relation", "score", "scores", "subject", "object"}: the likeliest relation, its probability, the five
        likeliest, and between what it holds: text and characters, as `Relation.entities` has them."""
        logits = np.asarray(outputs["logits"], np.float64)
        odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities = odds / odds.sum(axis=-1, keepdims=True)
        best = np.argsort(-logits, axis=-1, kind="stable")[:, :_BEST]
        predictions = []
        for example, order, row in zip(examples, best.tolist(), probabilities, strict=True):
            scores = {self.labels[index]: float(row[index]) for index in order}
            predictions.append({"id": example.id, "relation": self.labels[order[0]], "score": float(row[order[0]]),
                                "scores": scores, **example.entities()})
        return predictions

    def score(self, examples: Sequence[Relation], predictions: Sequence[Prediction]) -> dict[str, float]:
        """As `metrics.relations` has it, in percent; a relation that was not trained on is always missed."""
        return SCORINGS[self.settings["scoring"]](
            [example.relation for example in examples], [prediction["relation"] for prediction in predictions],
            self.facts["negative"])

    def files(self, examples: Sequence[Relation], predictions: Sequence[Prediction]) -> dict[str, str]:
        """"predictions.txt", id and relation a line, as the reference writes and the scorer of SemEval reads."""
        lines = [f"{prediction['id']}\t{prediction['relation']}\n" for prediction in predictions]
        return {"predictions.txt": "".join(lines)}
