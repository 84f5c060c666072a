"""Tags for words, such as names of persons and places: BIO or BIOES, from CoNLL's columns or JSON lines."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.model import Outputs
from spanbert_jax.model.losses import LossSums, cross_entropy, weighted_sums
from spanbert_jax.tasks.features import FeatureList, Features
from spanbert_jax.tasks.files.columns import Columns, Sentence, read_sentences, sentence_of
from spanbert_jax.tasks.metrics.tagging import Entity, entities, tagging_figures
from spanbert_jax.tasks.protocol import Prediction, Task
from spanbert_jax.tasks.word_tokens import word_pieces
from spanbert_jax.text import special_ids

_PREFIXES = {"BIO": "BI", "BIOES": "BIES"}
_OUTSIDE = "O"
_SHORTEST = 3  # [CLS], a piece, [SEP]


class TokenClassification(Task):
    """Classifies each word by the output at its first piece.

    Facts: "labels", the tags: O, then those of each type, the most frequent first; "scheme", BIO or BIOES.
    """
    head = "token_classification"
    metric = "f1"
    targets = ("tag", "tag_weight")

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Fields of `config.task`.

        word_column, tag_column: of files in columns, counted from 0, or backwards from -1.
        strip_word_index: whether words of such files end in a number that is to be taken off; see
          `files.columns.Columns`.
        """
        return {"word_column": 0, "tag_column": -1, "strip_word_index": False}

    def check_settings(self) -> None:
        settings = self.settings
        if settings["word_column"] == settings["tag_column"]:
            raise UserError(f"config.task.word_column and tag_column are both {settings['word_column']}: give each its "
                            "own")
        if settings.get("length", _SHORTEST) < _SHORTEST:
            raise UserError(f"config.task.length is {settings['length']}: at least {_SHORTEST} are needed, for [CLS], "
                            "a piece and [SEP]")

    def read(self, path: str, faults: DataIssues, labelled: bool = True) -> Iterator[Sentence]:
        """Yields the sentences of a file, as `files.columns.read_sentences` has it."""
        columns = Columns(*(self.settings[name] for name in ("word_column", "tag_column", "strip_word_index")))
        return read_sentences(path, columns, faults, labelled)

    def example(self, inputs: str | Mapping[str, Any], where: str, faults: DataIssues) -> Sentence:
        """Of a text, or of {"text"} or {"tokens"} as in JSON lines."""
        record = {"text": inputs} if isinstance(inputs, str) else inputs
        return sentence_of({**record, "id": where}, where)

    def learn(self, examples: Sequence[Sentence], tokenizer: Tokenizer) -> None:
        """Stores scheme and tags.

        Raises:
          UserError: when there is no entity, or entities are tagged in both schemes.
        """
        scheme = find_scheme(examples)
        counts = Counter(kind for example in examples for kind, _, _ in entities(example.tags))
        if not counts:
            raise UserError(f"no entity in {len(examples):,} training examples, so there is nothing to learn; is "
                            f"config.task.tag_column {self.settings['tag_column']} the right one?")
        kinds = sorted(counts, key=lambda kind: (-counts[kind], kind))
        tags = [f"{prefix}-{kind}" for kind in kinds for prefix in _PREFIXES[scheme]]
        self.facts |= {"labels": [_OUTSIDE, *tags], "scheme": scheme}

    def features(self, examples: Sequence[Sentence], tokenizer: Tokenizer, faults: DataIssues,
                 labelled: bool = True) -> Features:
        """[CLS], the pieces of the words, [SEP]; types are all 0.

        A sentence that is too long becomes several features of `length` pieces, `length` // 2 after one another, and
        each word counts in that in which its first piece has most context on the side where it has less. A word that
        the tokenizer makes nothing of is an [UNK].

        Pieces: "word", int32, the number of the word at its first piece, there where it counts, else -1; "tag", int32,
        and "tag_weight", float32, 1 at such a piece, 0 where the tag was not trained on, and elsewhere.
        """
        special, length, made = special_ids(tokenizer), self.settings["length"], FeatureList()
        pieces = word_pieces((word for example in examples for word in example.words), tokenizer)
        indices = {tag: index for index, tag in enumerate(self.labels)}
        for number, example in enumerate(examples):
            of_words = [pieces[word] or [special.unk] for word in example.words]
            for word in (word for word, text in enumerate(example.words) if not pieces[text]):
                faults.add("words that the tokenizer makes nothing of, read as [UNK]", example.place(word))
            by_word = self._targets(example, indices, faults) if labelled else {}
            firsts = np.cumsum([0, *map(len, of_words)])[:-1]
            tokens = [piece for word in of_words for piece in word]
            starts, counts_in = windows(len(tokens), firsts, length - 2, length // 2)
            bounds = np.searchsorted(counts_in, np.arange(len(starts) + 1))
            for start, first, end in zip(starts, bounds[:-1], bounds[1:]):
                inside = [special.cls, *tokens[start:start + length - 2], special.sep]
                at = firsts[first:end] - start + 1
                by_piece = {name: _spread(values[first:end], at, len(inside)) for name, values in by_word.items()}
                by_piece["word"] = _spread(np.arange(first, end), at, len(inside), elsewhere=-1)
                made.add(number, inside, np.zeros(len(inside)), pieces=by_piece)
        targets = {"tag": np.int32, "tag_weight": np.float32} if labelled else {}
        return made.features(pieces={"word": np.int32, **targets})

    def _targets(self, example: Sentence, indices: Mapping[str, int], faults: DataIssues) -> dict[str, np.ndarray]:
        """Index and weight of the tag of each word."""
        scheme = self.facts["scheme"]
        tags = encode(entities(example.tags), len(example.words), scheme)
        for word, (tag, stored) in enumerate(zip(tags, example.tags)):
            if tag != stored:
                faults.add(f"tags against the {scheme} scheme, read as the CoNLL script reads them",
                           f"{example.place(word)} ({stored} read as {tag})")
            if tag not in indices:
                faults.add("tags that were not trained on, left out of the loss and never right",
                           f"{example.place(word)} ({stored})")
        return {"tag": np.array([indices.get(tag, 0) for tag in tags]),
                "tag_weight": np.array([float(tag in indices) for tag in tags])}

    def loss(self, outputs: Outputs, batch: Mapping[str, jax.Array]) -> LossSums:
        """Cross-entropy over the tags."""
        return weighted_sums(*cross_entropy(outputs.logits, batch["tag"]), batch["tag_weight"])

    def decode(self, examples: Sequence[Sentence], features: Features,
               outputs: Mapping[str, Any]) -> list[Prediction]:
        """{"id", "tags", "scores", "entities"}: the likeliest tag of each word, its probability, and what they make.

        An entity is {"type", "start", "end", "text", "score"}: characters of the text, the end not included, and the
        mean probability of its tags. Where there are words and no text, it is the words joined by single spaces.
        """
        at = np.flatnonzero(features.pieces["word"] >= 0)
        logits = np.asarray(outputs["logits"])[at].astype(np.float64)
        best = logits.argmax(axis=-1)
        probabilities = 1 / np.exp(logits - logits.max(axis=-1, keepdims=True)).sum(axis=-1)
        of = np.repeat(features.example, features.lengths)[at]
        bounds = np.searchsorted(of, np.arange(len(examples) + 1))
        predictions = []
        for example, first, end in zip(examples, bounds[:-1], bounds[1:], strict=True):
            tags = [self.labels[index] for index in best[first:end].tolist()]
            scores = probabilities[first:end].tolist()
            predictions.append({"id": example.id, "tags": tags, "scores": scores,
                                "entities": _located(example, entities(tags), scores)})
        return predictions

    def score(self, examples: Sequence[Sentence], predictions: Sequence[Prediction]) -> dict[str, float]:
        """As `metrics.tagging` has it, in percent; entities of a type that was not trained on are always missed."""
        return tagging_figures([example.tags for example in examples],
                               [prediction["tags"] for prediction in predictions])

    def files(self, examples: Sequence[Sentence], predictions: Sequence[Prediction]) -> dict[str, str]:
        """"predictions.conll": word, tag, or - where it is not known, and predicted tag, with tabs in between."""
        lines = []
        for example, prediction in zip(examples, predictions, strict=True):
            answers = example.tags or ["-"] * len(example.words)
            for word, answer, guess in zip(example.words, answers, prediction["tags"], strict=True):
                word = " ".join(word.split()) or "_"  # in JSON a word may be white space
                lines.append(f"{word}\t{answer}\t{guess}\n")
            lines.append("\n")
        return {"predictions.conll": "".join(lines)}


def find_scheme(examples: Sequence[Sentence]) -> str:
    """"BIOES" where a tag begins with E- or S-, else "BIO".

    Raises:
      UserError: when there are such tags, and entities that do not end in one.
    """
    closing = next((f"{example.place(word)}: {tag}" for example in examples for word, tag in enumerate(example.tags)
                    if tag[0] in "ES"), None)
    if closing is None:
        return "BIO"
    for example in examples:
        for _, _, last in entities(example.tags):
            if example.tags[last][0] not in "ES":
                raise UserError(f"{example.place(last)}: the entity that ends here is tagged in BIO, with "
                                f"{example.tags[last]}, and another in BIOES ({closing}); tag all in one scheme")
    return "BIOES"


def encode(found: Sequence[Entity], count: int, scheme: str) -> list[str]:
    """The tags of `count` words with these entities in them."""
    tags = [_OUTSIDE] * count
    for kind, first, last in found:
        for word in range(first, last + 1):
            tags[word] = f"{'B' if word == first else 'I'}-{kind}"
        if scheme == "BIOES":
            tags[last] = f"{'S' if first == last else 'E'}-{kind}"
    return tags


def windows(count: int, positions: np.ndarray, size: int, stride: int) -> tuple[list[int], np.ndarray]:
    """Where windows over `count` pieces start, and in which of them each position has most context.

    Args:
      positions: [n], of pieces.
      size: of a window.
      stride: from one to the next, `size` at most; the last one ends with the pieces.
    """
    starts = [*range(0, count - size, stride), max(count - size, 0)]
    # The less a position is from the middle of a window, the more context it has there on its shorter side.
    halfway = (np.array(starts[:-1]) + np.array(starts[1:]) + size - 1) / 2
    return starts, np.searchsorted(halfway, positions)


def _spread(values: np.ndarray, at: np.ndarray, count: int, elsewhere: int = 0) -> np.ndarray:
    spread = np.full(count, elsewhere, values.dtype)
    spread[at] = values
    return spread


def _located(example: Sentence, found: Sequence[Entity], scores: Sequence[float]) -> list[dict[str, Any]]:
    """Entities as `TokenClassification.decode` gives them."""
    text, offsets = example.located()
    located = []
    for kind, first, last in found:
        start, end = offsets[first][0], offsets[last][1]
        located.append({"type": kind, "start": start, "end": end, "text": text[start:end],
                        "score": sum(scores[first:last + 1]) / (last + 1 - first)})
    return located
