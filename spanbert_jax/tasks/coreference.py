"""Coreference resolution: the mentions of a document, in chains that refer to the same entity."""
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.settings import setting
from spanbert_jax.model import ComputeConfig, ModelConfig, train_step_flops
from spanbert_jax.model.coreference import CoreferenceModel, CoreferenceScorer, Mentions
from spanbert_jax.model.losses import LossSums
from spanbert_jax.tasks.coreference_antecedents import NONE, AntecedentFinder, Antecedents
from spanbert_jax.tasks.coreference_html import chains_page
from spanbert_jax.tasks.coreference_rows import WORD_CLASS, Words, pack_documents
from spanbert_jax.tasks.coreference_words import word_class
from spanbert_jax.tasks.features import FeatureBuilder, Features
from spanbert_jax.tasks.files.coreference import (
    CoreferenceDocument,
    Span,
    parse_coreference,
    read_coreference,
    to_conll,
)
from spanbert_jax.tasks.files.reading import describe_location
from spanbert_jax.tasks.metrics.coreference import coreference_metrics
from spanbert_jax.tasks.metrics.gap import gap_metrics
from spanbert_jax.tasks.packing import PackedRows, pack, row_length
from spanbert_jax.tasks.packing_pairs import labels_of
from spanbert_jax.tasks.protocol import NOT_FINITE, FittedState, Prediction, Program, Task, TaskSettings, select_inputs
from spanbert_jax.tasks.tokenizing import tokenize_words
from spanbert_jax.text import special_ids

_SINGLETONS = 0.05  # chains of one mention are annotated if at least this share of the chains are such
# Whether the labels of a feature are mentions that are given for prediction.
_NOT_GIVEN, _ONLY_GIVEN, _SOME_GIVEN = range(3)


@dataclasses.dataclass(frozen=True)
class CoreferenceSettings(TaskSettings):
    """Settings of coreference resolution."""
    length: int = setting(512, "Maximum number of tokens per segment, special tokens included; a longer document is "
                          "several segments, which are encoded independently.", minimum=8)
    document_length: int = setting(4096, "Maximum number of tokens of a document in training; longer ones are cut into "
                                   "equal parts.", minimum=8)
    max_span_width: int = setting(30, "Maximum number of words of a mention.", minimum=1, maximum=1000)
    top_span_ratio: float = setting(0.4, "Mentions whose antecedents are scored, as a share of the words.", above=0,
                                    maximum=1)
    ffnn_size: int = setting(1024, "Width of the vectors of first and last words.", minimum=1)
    pair_categories: bool = setting(False, "Whether each category of pairs of mentions has weights of its own "
                                    "(LingMess): agreeing pronouns, other pronouns, a pronoun with another mention, "
                                    "equal words, contained words, others. The pronouns are English.")


@dataclasses.dataclass(frozen=True)
class CoreferenceState(FittedState):
    """Fitted state of coreference resolution."""
    singletons: bool = False  # whether chains of one mention are annotated


@dataclasses.dataclass(frozen=True)
class Coreference(Task[CoreferenceDocument]):
    """Scores mentions and antecedents from their first and last words; see `model.coreference`."""
    Settings, Fitted = CoreferenceSettings, CoreferenceState
    other_names = ("coreference_resolution",)
    metric = "conll_f1"
    label_fields = ()

    def read(self, path: str, issues: DataIssues, with_labels: bool = True) -> Iterator[CoreferenceDocument]:
        return read_coreference(path, issues, with_labels)

    def example(self, inputs: str | Mapping[str, Any], location: str, issues: DataIssues) -> CoreferenceDocument:
        """From a text, or from the fields of a line of JSON: "text", "tokens" or "sentences", and "mentions" or
        "chains" that are given."""
        return parse_coreference(inputs, location, issues)

    def fit(self, examples: Sequence[CoreferenceDocument], tokenizer: Tokenizer) -> Self:
        """Finds out whether chains of one mention are annotated. Raises UserError if there is no chain."""
        sizes = [len(chain) for example in examples for chain in example.chains or ()]
        if not sizes:
            raise UserError(f"the training data ({len(examples)} documents) contain no chain of mentions, so there is "
                            "nothing to learn; are they in another format?")
        return self.with_fitted(singletons=sizes.count(1) >= _SINGLETONS * len(sizes))

    def features(self, examples: Sequence[CoreferenceDocument], tokenizer: Tokenizer, issues: DataIssues,
                 with_labels: bool = True) -> Features:
        """The segments of each document: [CLS], the tokens of its words, [SEP]; token types are all 0.

        A segment ends at the last sentence that fits, or else at the last word, as in the reference. The name of a
        speaker and a colon precede the words of a turn, and are no words. A word that the tokenizer maps to no token
        is an [UNK]; one that is longer than a segment is truncated.

        Token columns, int32: "word", the number of each token's word, -1 for others; with `pair_categories` also
        "word_class", see `word_class`. Columns: "partial", 1 if only some mentions are annotated; "given", whether
        mentions are `_ONLY_GIVEN`, `_SOME_GIVEN` or `_NOT_GIVEN`.
        Labels: first word, last word and chain, from 1, of each mention, in the segment of the first word; -1 for a
        given mention without a chain.
        """
        special, room, builder = special_ids(tokenizer), self.settings.length - 2, FeatureBuilder()
        tokens_of = tokenize_words(_all_words(examples), tokenizer)
        for number, example in enumerate(examples):
            words = _words(example)
            self._count_words(example, [tokens_of[word] for word in words], room, issues)
            mentions = self._mentions(example, with_labels, issues)
            given = (_ONLY_GIVEN if example.mentions is not None
                     else _SOME_GIVEN if example.given_chains and not with_labels else _NOT_GIVEN)
            turns = {word: tokens_of[name][:room // 4] for word, name in _turns(example)}
            pieces = [[*turns.get(word_number, ()), *(tokens_of[word] or [special.unk])][:room]
                      for word_number, word in enumerate(words)]
            sizes = np.array([len(tokens) for tokens in pieces], np.int64)
            for first, end in segments(sizes, example.sentences, room) or [(0, 0)]:
                tokens, numbers = [special.cls], [-1]
                for word in range(first, end):
                    turn = len(turns.get(word, ()))
                    tokens += pieces[word]
                    numbers += [-1] * turn + [word] * (len(pieces[word]) - turn)
                inside = mentions[np.searchsorted(mentions[:, 0], first):np.searchsorted(mentions[:, 0], end)]
                columns = {"partial": example.partial, "given": given}
                token_columns = {"word": [*numbers, -1]}
                if self.settings.pair_categories:
                    token_columns[WORD_CLASS] = [word_class(words[word]) if word >= 0 else 0 for word in [*numbers, -1]]
                builder.add(number, [*tokens, special.sep], np.zeros(len(tokens) + 1), columns, token_columns,
                            inside.reshape(-1))
        return builder.build({"partial": np.uint8, "given": np.uint8}, dict.fromkeys(
            ("word", WORD_CLASS) if self.settings.pair_categories else ("word",), np.int32))

    def _count_words(self, example: CoreferenceDocument, tokens: Sequence[Sequence[int]], room: int,
                     issues: DataIssues) -> None:
        for issue, count in (
                ("words that the tokenizer maps to no token, read as [UNK]", sum(not word for word in tokens)),
                ("words longer than config.task.length, truncated", sum(len(word) > room for word in tokens))):
            if count:
                issues.add(issue, describe_location(example), count)

    def _mentions(self, example: CoreferenceDocument, with_labels: bool, issues: DataIssues) -> np.ndarray:
        """[M, 3] first word, last word and chain of the mentions that are learned, or given; ascending.

        A span in several chains is learned in the first of them.
        """
        chains = (example.chains if with_labels else example.given_chains) or ()
        found = {span: number for number, chain in reversed(list(enumerate(chains, 1))) for span in chain}
        if example.mentions is not None:
            found = {span: found.get(span, -1) for span in example.mentions}
        if with_labels:
            longest = self.settings.max_span_width
            allowed = {span: chain for span, chain in found.items() if span[1] - span[0] <= longest}
            if len(allowed) < len(found):
                issues.add("mentions of more words than config.task.max_span_width, not learned and counted as missed",
                           describe_location(example), len(found) - len(allowed))
            found = allowed
        rows = sorted((first, end - 1, chain) for (first, end), chain in found.items())
        return np.array(rows, np.int32).reshape(-1, 3)

    def pack(self, features: Mapping[str, Features], pad: int, seed: int) -> dict[str, PackedRows]:
        return {part: pack_documents(found, self.settings.document_length, pad, seed) if part == "train"
                else pack(found, row_length(found.lengths), pad) for part, found in features.items()}

    # Model and loss.

    def build_model(self, encoder: ModelConfig, compute: ComputeConfig, tokenizer: Tokenizer) -> CoreferenceModel:
        settings = self.settings
        return CoreferenceModel(encoder, compute, settings.ffnn_size, settings.max_span_width, settings.top_span_ratio,
                                settings.pair_categories)

    def apply(self, model: CoreferenceModel, params: Any, batch: Mapping[str, jax.Array],
              dropout_key: jax.Array | None = None) -> Any:
        """The losses of rows of documents."""
        rows, segments = batch["first"].shape
        encoded = (batch[name].reshape(rows, segments, -1) for name in ("tokens", "segments", "token_types"))
        return model.apply({"params": params}, *encoded,
                           Mentions(batch["word_first"], batch["word_last"]), batch["documents"],
                           Mentions(batch["mention_start"], batch["mention_end"]), batch["chains"], batch["partial"],
                           batch.get(WORD_CLASS),
                           deterministic=dropout_key is None,
                           rngs={} if dropout_key is None else {"dropout": dropout_key})

    def loss(self, outputs: Any, batch: Mapping[str, jax.Array]) -> LossSums:
        """The sum of the three losses, per word."""
        return LossSums(sum(outputs), None, jnp.sum(batch["documents"] > 0, axis=1).astype(jnp.float32))

    def step_flops(self, model: CoreferenceModel, rows: PackedRows, count: int) -> float:
        """Model FLOPs of the encoder, whose tokens attend to their own segment."""
        return train_step_flops(model.config, count * rows.texts, rows.length // rows.texts)

    # Prediction.

    def program(self, model: CoreferenceModel, tokenizer: Tokenizer) -> Program:
        """Encodes the segments; then finds mentions and antecedents, one document at a time."""
        scorer = CoreferenceScorer(model.config, model.compute, model.ffnn_size, model.pair_categories)
        find = AntecedentFinder(scorer, model.max_span_width, model.top_span_ratio)

        def compute(params: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            hidden: Any = model.apply({"params": params}, batch["tokens"], batch["segments"], batch["token_types"],
                                      method="encode")
            return {"hidden": hidden}

        def finish(outputs: dict[str, np.ndarray], features: Features, params: Any) -> dict[str, Any]:
            words, labels = Words.of(features), labels_of(features)
            bounds = words.bounds(len(features))
            classes = features.token_columns[WORD_CLASS][words.first] if model.pair_categories else None
            documents = []
            for part in features.by_example(int(features.example.max(initial=-1)) + 1):
                inside = slice(bounds[part.start], bounds[part.stop])
                how = features.columns["given"][part.start]
                spans = labels.tokens[labels.starts[part.start]:labels.starts[part.stop]].reshape(-1, 3)
                given = spans[:, :2].astype(np.int64) + [0, 1] if how != _NOT_GIVEN else None
                documents.append(find(params["scorer"], outputs["hidden"][words.first[inside]],
                                      outputs["hidden"][words.last[inside]],
                                      classes[inside] if classes is not None else None, given, how == _ONLY_GIVEN))
            return {"documents": documents}

        return Program(compute, select_inputs, per_text=False, finish=finish, local=True)

    def decode(self, examples: Sequence[CoreferenceDocument], features: Features,
               outputs: Mapping[str, Any]) -> list[Prediction]:
        """{"id", "tokens", "chains"}: the words, and the chains by their first mention.

        Each mention of a chain is {"start", "end", "text", "words"}: characters [start, end) of the text, and the
        numbers of its first word and of the one after its last. Chains of one mention are left out unless the training
        data had some.
        """
        predictions = []
        for example, found in zip(examples, outputs["documents"], strict=True):
            chains = self._chains(example, found)
            prediction: Prediction = {"id": example.id, "tokens": _words(example),
                                      "chains": [[_located(example, span) for span in chain] for chain in chains]}
            if not np.isfinite(found.mention_scores).all():
                prediction["note"] = NOT_FINITE
            predictions.append(prediction)
        return predictions

    def _chains(self, example: CoreferenceDocument, found: Antecedents) -> list[list[Span]]:
        """The chains of a document, ascending by first mention."""
        given = {span: number for number, chain in enumerate(example.given_chains or ()) for span in chain}
        chains: dict[Any, list[Span]] = {}
        names: list[Any] = []  # of the chain of each mention
        for (first, end), antecedent in zip(found.mentions.tolist(), found.antecedents.tolist()):
            span = (first, end)
            name = given[span] if span in given else names[antecedent] if antecedent != NONE else span
            names.append(name)
            chains.setdefault(name, []).append(span)
        certain = {tuple(span) for span, score in zip(found.mentions.tolist(), found.mention_scores.tolist())
                   if score > 0}
        return [chain for chain in chains.values()
                if len(chain) > 1 or (self.fitted.singletons and chain[0] in certain)]

    def score(self, examples: Sequence[CoreferenceDocument], predictions: Sequence[Prediction]) -> dict[str, Any]:
        """See `metrics.coreference`; chains of one mention of partly annotated documents are left out. For examples of
        GAP also "gap_..." as in `metrics.gap`: a pronoun means a name if both are in one chain."""
        both = [(example, [chain for chain in _spans(prediction) if len(chain) > 1 or not example.partial])
                for example, prediction in zip(examples, predictions, strict=True)]
        metrics = coreference_metrics((example.chains or (), chains) for example, chains in both)
        pairs = [(example.gap, chains) for example, chains in both if example.gap]
        if pairs:
            found = gap_metrics([gap.gender for gap, _ in pairs],
                                [(bool(gap.a_coref), bool(gap.b_coref)) for gap, _ in pairs],
                                [(_linked(chains, gap.pronoun, gap.a), _linked(chains, gap.pronoun, gap.b))
                                 for gap, chains in pairs])
            metrics |= {f"gap_{name}": value for name, value in found.items()}
        return metrics

    def files(self, examples: Sequence[CoreferenceDocument], predictions: Sequence[Prediction]) -> dict[str, str]:
        """"predictions.conll": the documents in CoNLL-2012's columns."""
        return {"predictions.conll": "".join(to_conll(example, _spans(prediction))
                                             for example, prediction in zip(examples, predictions, strict=True))}

    def html(self, examples: Iterable[CoreferenceDocument], predictions: Iterable[Prediction]) -> Iterator[str]:
        """Each text with its chains in colour."""
        return chains_page((example.text, prediction)
                           for example, prediction in zip(examples, predictions, strict=True))


def segments(sizes: np.ndarray, sentences: Sequence[int], room: int) -> list[tuple[int, int]]:
    """First word of each segment and the one after its last.

    Args:
      sizes: tokens of each word, at most `room`.
      sentences: the first word of each sentence, ascending.
      room: maximum number of tokens per segment.
    """
    ends = np.concatenate([[0], np.cumsum(sizes)])
    found, first = [], 0
    while first < len(sizes):
        end = int(np.searchsorted(ends, ends[first] + room, "right")) - 1
        if end < len(sizes):
            sentence = int(np.searchsorted(sentences, end, "right")) - 1
            if sentence >= 0 and sentences[sentence] > first:
                end = int(sentences[sentence])
        found.append((first, end))
        first = end
    return found


def _words(example: CoreferenceDocument) -> list[str]:
    return [example.word(number) for number in range(len(example.words))]


def _all_words(examples: Sequence[CoreferenceDocument]) -> Iterator[str]:
    for example in examples:
        yield from _words(example)
        yield from (name for _, name in _turns(example))


def _turns(example: CoreferenceDocument) -> list[tuple[int, str]]:
    """The first word of each turn of a known speaker, and the speaker's name with a colon."""
    speakers = example.speakers or ()
    return [(word, f"{speaker}:") for word, speaker in enumerate(speakers)
            if speaker and (word == 0 or speakers[word - 1] != speaker)]


def _located(example: CoreferenceDocument, span: Span) -> dict[str, Any]:
    start, end = example.characters(span)
    return {"start": start, "end": end, "text": example.text[start:end], "words": list(span)}


def _linked(chains: Sequence[Sequence[Span]], one: Span, other: Span) -> bool:
    """Whether two mentions are in one chain."""
    return any(one in chain and other in chain for chain in chains)


def _spans(prediction: Prediction) -> list[list[Span]]:
    return [[(mention["words"][0], mention["words"][1]) for mention in chain] for chain in prediction["chains"]]
