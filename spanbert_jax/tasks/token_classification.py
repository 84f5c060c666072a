"""Token classification: BIO or BIOES tags of words, from CoNLL columns or JSON."""
import dataclasses
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import jax
import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.settings import from_dict, require, setting
from spanbert_jax.model import Head
from spanbert_jax.model.losses import LossSums, cross_entropy, weighted_sums
from spanbert_jax.tasks.features import FeatureBuilder, Features
from spanbert_jax.tasks.files.columns import Columns, Sentence, is_tag, parse_sentence, read_sentences
from spanbert_jax.tasks.protocol import Classes, FittedState, Prediction, Task, TaskSettings, softmax
from spanbert_jax.tasks.tokenizing import tokenize_words
from spanbert_jax.text import special_ids

_PREFIXES = {"BIO": "BI", "BIOES": "BIES"}
_OUTSIDE = "O"
Entity = tuple[str, int, int]  # type, first and last word


@dataclasses.dataclass(frozen=True)
class TokenClassificationSettings(TaskSettings):
    """Settings of token classification."""
    word_column: int = setting(0, "Column of the words in CoNLL files, from 0, or from the end with -1.")
    tag_column: int = setting(-1, "Column of the tags, likewise.")
    tag_names: tuple[str, ...] = setting((), "Names of the tags by number, for JSON files whose tags are numbers.")
    strip_word_index: bool = setting(False, "Words end in an index to remove; see files.columns.Columns.")
    probabilities: bool = setting(False, "List the probabilities of all tags.", overridable=True)

    def validate(self, path: str) -> None:
        super().validate(path)
        require(self.word_column != self.tag_column, f"{path}.tag_column", self.tag_column,
                f"must differ from {path}.word_column")


@dataclasses.dataclass(frozen=True)
class TokenClassificationState(FittedState):
    """Fitted state; `labels` are the tags: O, then those of each entity type, the most frequent type first."""
    scheme: str = ""  # "BIO" or "BIOES"


class TokenClassification(Task[Sentence]):
    """Classifies each word from the output at its first token."""
    Settings, Fitted = TokenClassificationSettings, TokenClassificationState
    head = "token_classification"
    metric = "f1"
    label_fields = ("tag", "tag_weight")

    def read(self, path: str, issues: DataIssues, with_labels: bool = True) -> Iterator[Sentence]:
        settings = self.settings
        columns = Columns(settings.word_column, settings.tag_column, settings.strip_word_index, settings.tag_names)
        return read_sentences(path, columns, issues, with_labels)

    def example(self, inputs: str | Mapping[str, Any], location: str, issues: DataIssues) -> Sentence:
        """From a text, or from {"text"} or {"tokens"} as in JSON lines."""
        record = {"text": inputs} if isinstance(inputs, str) else inputs
        return parse_sentence({**record, "id": location}, location, issues)

    def fit(self, examples: Sequence[Sentence], tokenizer: Tokenizer) -> Self:
        """Finds the tags and their scheme. Raises UserError if there is no entity, or entities in both schemes."""
        scheme = find_scheme(examples)
        counts = Counter(kind for example in examples for kind, _, _ in entities(example.tags or ()))
        if not counts:
            raise UserError(f"the training data ({format_plural(len(examples), 'example')}) contains no entity, so "
                            "there is nothing to learn; is config.task.tag_column="
                            f"{self.settings.tag_column} the right column?")
        kinds = sorted(counts, key=lambda kind: (-counts[kind], kind))
        tags = [f"{prefix}-{kind}" for kind in kinds for prefix in _PREFIXES[scheme]]
        return self.with_fitted(labels=(_OUTSIDE, *tags), scheme=scheme)

    @classmethod
    def of_head(cls, head: Head, length: int, settings: Mapping[str, Any]) -> Self:
        """Labels that are not tags of entities, such as parts of speech, are refused."""
        if other := next((label for label in head.labels if not is_tag(label)), None):
            raise UserError(f"its label {other!r} is not a tag of entities, which is O, or a type after B- or I-")
        scheme = "BIOES" if any(label[0] in "ES" for label in head.labels) else "BIO"
        return cls(from_dict(cls.Settings, {"length": length, **settings}, "config.task"),
                   cls.Fitted(labels=head.labels, scheme=scheme))

    def features(self, examples: Sequence[Sentence], tokenizer: Tokenizer, issues: DataIssues,
                 with_labels: bool = True) -> Features:
        """[CLS], the tokens of the words, [SEP]; token types are all 0.

        A sentence that is too long becomes several features of `length` tokens, each `length` // 2 after the one
        before. Each word is predicted in the feature in which its first token has the largest min(left context, right
        context). A word that the tokenizer maps to no token is an [UNK].

        Token columns: "word", int32, the number of the word at the first token where it is predicted, else -1; "tag",
        int32; "tag_weight", float32, 1 at these tokens and 0 elsewhere and for unknown tags.
        """
        special, length, builder = special_ids(tokenizer), self.settings.length, FeatureBuilder()
        tokens_of = tokenize_words((word for example in examples for word in example.words), tokenizer)
        indices = {tag: index for index, tag in enumerate(self.labels)}
        for number, example in enumerate(examples):
            words = [tokens_of[word] or [special.unk] for word in example.words]
            for word in (word for word, text in enumerate(example.words) if not tokens_of[text]):
                issues.add("words that the tokenizer maps to no token, read as [UNK]", example.word_location(word))
            by_word = self._targets(example, indices, issues) if with_labels else {}
            firsts = np.cumsum([0, *map(len, words)])[:-1]
            tokens = [token for word in words for token in word]
            starts, window_of = windows(len(tokens), firsts, length - 2, length // 2)
            bounds = np.searchsorted(window_of, np.arange(len(starts) + 1))
            for start, first, end in zip(starts, bounds[:-1], bounds[1:]):
                inside = [special.cls, *tokens[start:start + length - 2], special.sep]
                at = firsts[first:end] - start + 1
                columns = {name: _spread(values[first:end], at, len(inside)) for name, values in by_word.items()}
                columns["word"] = _spread(np.arange(first, end), at, len(inside), elsewhere=-1)
                builder.add(number, inside, np.zeros(len(inside)), token_columns=columns)
        label_dtypes = {"tag": np.int32, "tag_weight": np.float32} if with_labels else {}
        return builder.build(token_columns={"word": np.int32, **label_dtypes})

    def _targets(self, example: Sentence, indices: Mapping[str, int], issues: DataIssues) -> dict[str, np.ndarray]:
        """Index and weight of the tag of each word."""
        scheme = self.fitted.scheme
        tags = encode(entities(example.tags or ()), len(example.words), scheme)
        for word, (tag, stored) in enumerate(zip(tags, example.tags or ())):
            if tag != stored:
                issues.add(f"tags that violate the {scheme} scheme, read as the CoNLL script reads them",
                           f"{example.word_location(word)} ({stored} read as {tag})")
            if tag not in indices:
                issues.add("tags without training examples, left out of the loss and counted as wrong",
                           f"{example.word_location(word)} ({stored})")
        return {"tag": np.array([indices.get(tag, 0) for tag in tags]),
                "tag_weight": np.array([float(tag in indices) for tag in tags])}

    def loss(self, outputs: Any, batch: Mapping[str, jax.Array]) -> LossSums:
        """Cross-entropy over the tags."""
        return weighted_sums(*cross_entropy(outputs.logits, batch["tag"]), batch["tag_weight"])

    def decode(self, examples: Sequence[Sentence], features: Features, outputs: Mapping[str, Any]) -> list[Prediction]:
        """{"id", "words", "tags", "scores", "entities"}: the words, the most likely tag of each, its probability, and
        the entities. With `settings.probabilities` also "probabilities", those of all tags by word.

        An entity is {"type", "start", "end", "text", "score"}: characters [start, end) of the text, and the mean
        probability of its tags. Without a text, the text is the words joined by single spaces.
        """
        at = np.flatnonzero(features.token_columns["word"] >= 0)
        logits = np.asarray(outputs["logits"])[at].astype(np.float64)
        best = logits.argmax(axis=-1)
        probabilities = softmax(logits)
        example_of = np.repeat(features.example, features.lengths)[at]
        bounds = np.searchsorted(example_of, np.arange(len(examples) + 1))
        predictions = []
        for example, first, end in zip(examples, bounds[:-1], bounds[1:], strict=True):
            tags = [self.labels[index] for index in best[first:end].tolist()]
            scores = probabilities[first:end].max(axis=-1).tolist()
            predictions.append({"id": example.id, "words": list(example.words), "tags": tags, "scores": scores,
                                "entities": _located(example, entities(tags), scores)})
            if self.settings.probabilities:
                predictions[-1]["probabilities"] = [dict(zip(self.labels, row))
                                                    for row in probabilities[first:end].tolist()]
        return predictions

    def score(self, examples: Sequence[Sentence], predictions: Sequence[Prediction]) -> dict[str, float]:
        """See `tagging_metrics`; entities of types without training examples count as missed."""
        return tagging_metrics([example.tags or () for example in examples],
                               [prediction["tags"] for prediction in predictions], self.fitted.scheme)

    def classes(self, examples: Sequence[Sentence], predictions: Sequence[Prediction]) -> Classes:
        """The entity type of each word, or O."""
        def types(tags: Iterable[Sequence[str]]) -> list[str]:
            return [tag[2:] or tag for sentence in tags for tag in sentence]

        return Classes("word", types(example.tags or () for example in examples),
                       types(prediction["tags"] for prediction in predictions))

    def files(self, examples: Sequence[Sentence], predictions: Sequence[Prediction]) -> dict[str, str]:
        """"predictions.conll": word, tag ("-" if unknown) and predicted tag, separated by tabs."""
        lines = []
        for example, prediction in zip(examples, predictions, strict=True):
            answers = example.tags or ["-"] * len(example.words)
            for word, answer, guess in zip(example.words, answers, prediction["tags"], strict=True):
                word = " ".join(word.split()) or "_"  # in JSON a word may consist of white space
                lines.append(f"{word}\t{answer}\t{guess}\n")
            lines.append("\n")
        return {"predictions.conll": "".join(lines)}


def find_scheme(examples: Sequence[Sentence]) -> str:
    """"BIOES" if a tag starts with E- or S-, else "BIO". Raises UserError if entities are tagged in both schemes."""
    closing = next((f"{example.word_location(word)}: {tag}" for example in examples
                    for word, tag in enumerate(example.tags or ()) if tag[0] in "ES"), None)
    if closing is None:
        return "BIO"
    for example in examples:
        for _, _, last in entities(tags := example.tags or ()):
            if tags[last][0] not in "ES":
                raise UserError(f"{example.word_location(last)}: the entity that ends here is tagged in BIO, with "
                                f"{tags[last]}, but another one in BIOES ({closing}); use one scheme for all")
    return "BIOES"


def encode(found: Sequence[Entity], count: int, scheme: str) -> list[str]:
    """The tags of `count` words that contain given entities."""
    tags = [_OUTSIDE] * count
    for kind, first, last in found:
        for word in range(first, last + 1):
            tags[word] = f"{'B' if word == first else 'I'}-{kind}"
        if scheme == "BIOES":
            tags[last] = f"{'S' if first == last else 'E'}-{kind}"
    return tags


def windows(count: int, positions: np.ndarray, size: int, stride: int) -> tuple[list[int], np.ndarray]:
    """Starts of windows over `count` tokens, and the window in which each of several positions has most context.

    Args:
      positions: [n] ascending positions of tokens.
      size: of a window.
      stride: from one window to the next, at most `size`; the last window ends with the last token.
    """
    starts = [*range(0, count - size, stride), max(count - size, 0)]
    # The nearer a position is to the middle of a window, the more context it has on its shorter side.
    halfway = (np.array(starts[:-1]) + np.array(starts[1:]) + size - 1) / 2
    return starts, np.searchsorted(halfway, positions)


def _spread(values: np.ndarray, at: np.ndarray, count: int, elsewhere: int = 0) -> np.ndarray:
    spread = np.full(count, elsewhere, values.dtype)
    spread[at] = values
    return spread


def _located(example: Sentence, found: Sequence[Entity], scores: Sequence[float]) -> list[dict[str, Any]]:
    """Entities as in the result of `TokenClassification.decode`."""
    text, offsets = example.located()
    located = []
    for kind, first, last in found:
        start, end = offsets[first][0], offsets[last][1]
        located.append({"type": kind, "start": start, "end": end, "text": text[start:end],
                        "score": sum(scores[first:last + 1]) / (last + 1 - first)})
    return located


def entities(tags: Sequence[str]) -> list[Entity]:
    """Type, first and last word of each entity, by the lenient definition: an I- after O also starts an entity."""
    from seqeval.metrics.sequence_labeling import get_entities  # takes a second to import

    return [tuple(entity) for entity in get_entities(list(tags))]


def tagging_metrics(answers: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]],
                    scheme: str) -> dict[str, float]:
    """Metrics in percent, from the tags of each sentence: an entity is correct if its type and both ends are.

    Returns:
      "precision", "recall" and "f1" over all entities, 0 if undefined; "f1/TYPE" of each type in answers and
      predictions; "accuracy" of single tags, those of the entities in `scheme`, whatever scheme they are given in.
    """
    from seqeval.metrics import accuracy_score, classification_report

    answers, predicted = ([list(tags) for tags in part] for part in (answers, predicted))  # seqeval takes no tuples
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # about means over no type if there is no entity
        report = classification_report(answers, predicted, output_dict=True, zero_division=0)
    averages = {name: report.pop(f"{name} avg") for name in ("micro", "macro", "weighted")}
    parsed = ([encode(entities(tags), len(tags), scheme) for tags in part] for part in (answers, predicted))
    metrics = {"precision": averages["micro"]["precision"], "recall": averages["micro"]["recall"],
               "f1": averages["micro"]["f1-score"], "accuracy": accuracy_score(*parsed)}
    metrics |= {f"f1/{kind}": row["f1-score"] for kind, row in report.items()}
    return {name: 100 * float(value) for name, value in metrics.items()}
