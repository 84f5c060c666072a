"""The coreference model in torch, written from its definition, to compare ours with.

Each document is encoded by transformers' BertModel, without padded segments; all words with all words and all mentions
with all mentions are scored by one matrix product each, which is fastest for documents of this size.
"""
from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from spanbert_jax.tasks.coreference_antecedents import MIN_FIRST_WORD_LOG_ODDS, NONE, Antecedents
from spanbert_jax.tasks.features import Features
from spanbert_jax.training.experiment import Experiment

DISTANCES = 12


class Representation(nn.Module):
    """Linear, GELU, layer norm, dropout."""

    def __init__(self, width: int, outputs: int, dropout: float, epsilon: float):
        super().__init__()
        self.projection = nn.Linear(width, outputs)
        self.LayerNorm = nn.LayerNorm(outputs, eps=epsilon)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.LayerNorm(nn.functional.gelu(self.projection(x))))


class TorchCoreference(nn.Module):
    """Start-to-end coreference with a start filter, for one document at a time."""

    def __init__(self, encoder: transformers.BertModel, ffnn_size: int, max_span_width: int, top_span_ratio: float,
                 dropout: float):
        super().__init__()
        config = encoder.config

        def representation() -> Representation:
            return Representation(config.hidden_size, ffnn_size, dropout, config.layer_norm_eps)

        self.longest, self.ratio = max_span_width, top_span_ratio
        self.mention_start, self.mention_end = representation(), representation()
        self.antecedent_start, self.antecedent_end = representation(), representation()
        self.first_word, self.start, self.end = (nn.Linear(ffnn_size, 1) for _ in range(3))
        self.start_to_end = nn.Linear(ffnn_size, ffnn_size)
        self.pair, self.distance = nn.Linear(2 * ffnn_size, 2 * ffnn_size), nn.Linear(2 * ffnn_size, DISTANCES)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=config.initializer_range)
                nn.init.zeros_(module.bias)
        self.encoder = encoder

    def load_scorer(self, scorer: Mapping[str, Any]) -> None:
        """Loads the scorer of ours."""
        def state(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Tensor]]:
            for name, value in tree.items():
                if isinstance(value, Mapping):
                    yield from state(value, f"{prefix}{name.replace('norm', 'LayerNorm')}.")
                else:
                    array = torch.from_numpy(np.array(value))
                    yield (f"{prefix}bias", array) if name == "bias" else (
                        f"{prefix}weight", array.T if name == "kernel" else array)

        wrong = self.load_state_dict(dict(state(scorer, "")), strict=False)
        assert not wrong.unexpected_keys and all(name.startswith("encoder.") for name in wrong.missing_keys)

    def encode(self, segments: Sequence[Tensor]) -> list[Tensor]:
        """The hidden states of the tokens of each segment."""
        tokens = nn.utils.rnn.pad_sequence(list(segments), batch_first=True)
        lengths = torch.tensor([len(segment) for segment in segments])
        mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()
        hidden = self.encoder(tokens, attention_mask=mask).last_hidden_state
        return [row[:length] for row, length in zip(hidden, lengths.tolist())]

    def mention_scores(self, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores [W] of first words and [W, L] of mentions, and the last word of each mention, W beyond the text."""
        start, end = self.mention_start(first), self.mention_end(last)
        ends = torch.arange(len(first))[:, None] + torch.arange(self.longest)
        inside = ends.clamp(max=len(first) - 1)
        joint = (self.start_to_end(start) @ end.T / math.sqrt(start.shape[1])).gather(1, inside)
        scores = joint + self.start(start) + self.end(end).squeeze(1)[inside] - 5
        return self.first_word(start).squeeze(1) - 2, scores, ends

    def pair_scores(self, first: Tensor, last: Tensor, scores: Tensor, starts: Tensor) -> Tensor:
        """Scores [M, M] of mentions, from the hidden states of their first and last words, with antecedents."""
        both = torch.cat([self.antecedent_start(first), self.antecedent_end(last)], 1)
        distance = (starts[:, None] - starts).abs()
        level = torch.where(distance > 0, distance.clamp(min=1).log2().floor().long() + 1, 0).clamp(max=DISTANCES - 1)
        products = self.pair(both) @ both.T / math.sqrt(both.shape[1])
        return products + self.distance(both).gather(1, level) + scores[:, None] + scores

    def loss(self, row: Mapping[str, np.ndarray]) -> Tensor:
        """The sum of the three losses of a row of documents."""
        numbers = {name: torch.from_numpy(values.astype(np.int64)) for name, values in row.items()}
        documents = numbers["documents"]
        documents = documents[documents > 0]
        words, partial = len(documents), numbers["partial"][:len(documents)] > 0
        hidden = self._hidden_of_row(numbers)
        first, last = hidden[numbers["word_first"][:words]], hidden[numbers["word_last"][:words]]
        first_scores, scores, ends = self.mention_scores(first, last)
        allowed = (ends < words) & (documents[ends.clamp(max=words - 1)] == documents[:, None])
        gold = self._gold(numbers, words)
        annotated = (~partial).float()
        loss = (binary_cross_entropy_with_logits(first_scores, (gold != 0).any(1).float(), reduction="none")
                * annotated).sum()
        loss = loss + (binary_cross_entropy_with_logits(scores, (gold != 0).float(), reduction="none")
                       * allowed * annotated[:, None]).sum()
        start, width = self._kept(scores.detach(), gold, allowed, partial)
        values = self.pair_scores(first[start], last[start + width], scores[start, width], start)
        before = (torch.ones_like(values).tril(-1) > 0) & (documents[start, None] == documents[start])
        chains = gold[start, width]
        right = before & (chains[:, None] == chains) & (chains > 0)
        none = torch.zeros(len(start), 1)
        every = torch.cat([none, values.masked_fill(~before, -torch.inf)], 1).logsumexp(1)
        of_gold = torch.cat([none.masked_fill(right.any(1, keepdim=True), -torch.inf),
                             values.masked_fill(~right, -torch.inf)], 1).logsumexp(1)
        return loss + (every - of_gold).sum()

    def _hidden_of_row(self, numbers: Mapping[str, Tensor]) -> Tensor:
        """Hidden states by position in the row, of its segments one after the other."""
        count = int(numbers["segments"].max())
        lengths = [int((numbers["segments"] == number).sum()) for number in range(1, count + 1)]
        places = [int((numbers["segments"] == number).nonzero()[0]) for number in range(1, count + 1)]
        encoded = self.encode([numbers["tokens"][place:place + length] for place, length in zip(places, lengths)])
        ends = [*places[1:], places[-1] + lengths[-1]]
        return torch.cat([nn.functional.pad(hidden, (0, 0, 0, end - place - len(hidden)))
                          for hidden, place, end in zip(encoded, places, ends)])

    def _gold(self, numbers: Mapping[str, Tensor], words: int) -> Tensor:
        """The chain [W, L] of each possible mention, 0 for those that are none."""
        start, width = numbers["mention_start"], numbers["mention_end"] - numbers["mention_start"]
        real = (numbers["chains"] != 0) & (width < self.longest)
        gold = torch.zeros(words, self.longest, dtype=torch.long)
        gold[start[real], width[real]] = numbers["chains"][real]
        return gold

    def _kept(self, scores: Tensor, gold: Tensor, allowed: Tensor, partial: Tensor) -> tuple[Tensor, Tensor]:
        """First words and widths - 1 of the gold mentions and the best others, ascending."""
        scores = scores.masked_fill(partial[:, None], -torch.inf).masked_fill(gold != 0, torch.inf)
        scores = scores.masked_fill(~allowed, -torch.inf).flatten()
        best = scores.topk(min(max(1, round(self.ratio * len(gold))), int((scores > -torch.inf).sum()))).indices
        best = best.sort().values
        return best // self.longest, best % self.longest

    @torch.inference_mode()
    def find(self, segments: Sequence[Tensor], first_tokens: Tensor, last_tokens: Tensor) -> Antecedents:
        """The mentions of a document and their antecedents, from its segments and the places of its words."""
        hidden = torch.cat(self.encode(segments))
        first, last = hidden[first_tokens], hidden[last_tokens]
        first_scores, scores, ends = self.mention_scores(first, last)
        unlikely = first_scores[:, None] <= MIN_FIRST_WORD_LOG_ODDS
        scores = scores.masked_fill((ends >= len(first)) | unlikely, -torch.inf).flatten()
        count = min(math.ceil(self.ratio * len(first)), int((scores > -torch.inf).sum()))
        best = scores.topk(count).indices.sort().values
        start, width = best // self.longest, best % self.longest
        mentions, kept = np.stack([start, start + width + 1], 1), scores[best]
        if not count:
            return Antecedents(mentions, kept.numpy(), np.zeros(0, int), np.zeros(0))
        values = self.pair_scores(first[start], last[start + width], kept, start)
        score, antecedent = values.masked_fill(torch.ones_like(values).tril(-1) == 0, -torch.inf).max(1)
        return Antecedents(mentions, kept.numpy(), torch.where(score > 0, antecedent, NONE).numpy(), score.numpy())

    def documents(self, features: Features) -> list[Antecedents]:
        """`find` for each document of features."""
        found, numbers = [], features.token_columns["word"]
        for part in features.by_example(int(features.example.max(initial=-1)) + 1):
            tokens = slice(features.token_slice(part.start).start, features.token_slice(part.stop - 1).stop)
            segments = [torch.from_numpy(features.tokens[features.token_slice(feature)].astype(np.int64))
                        for feature in part]
            places = {}
            for place, word in enumerate(numbers[tokens].tolist()):
                places.setdefault(word, []).append(place)
            places.pop(-1, None)
            first, last = (torch.tensor([places[word][end] for word in sorted(places)], dtype=torch.long)
                           for end in (0, -1))
            found.append(self.find(segments, first, last))
        return found


def make_model(experiment: Experiment) -> TorchCoreference:
    """The model of `config.init_from` with a new scorer."""
    config, network = experiment.config, experiment.workload.model.config
    encoder = transformers.BertModel.from_pretrained(
        config.init_from, add_pooling_layer=False, hidden_dropout_prob=network.dropout,
        attention_probs_dropout_prob=network.attention_dropout)
    task = config.task
    return TorchCoreference(encoder, task.ffnn_size, task.max_span_width, task.top_span_ratio,
                            network.head_dropout)


def batches(experiment: Experiment) -> Iterator[dict[str, np.ndarray]]:
    """The rows of documents of each update, shuffled in each epoch; an update may span two epochs."""
    rows, per_step = experiment.workload.dataset.rows["train"], experiment.workload.rows_per_step
    random = np.random.default_rng(experiment.config.seed)
    stream = itertools.chain.from_iterable(random.permutation(len(rows)) for _ in itertools.count())
    for _ in range(experiment.size.total_steps):
        yield rows.rows(np.array(list(itertools.islice(stream, per_step))))


def loss_of(model: TorchCoreference, batch: Mapping[str, np.ndarray]) -> Tensor:
    """The loss of a batch of rows, per word."""
    count = len(batch["documents"])
    losses = [model.loss({name: values[row] for name, values in batch.items()}) for row in range(count)]
    return torch.stack(losses).sum() / int((batch["documents"] > 0).sum())


def scores_of(model: TorchCoreference, experiment: Experiment, part: str) -> dict[str, float]:
    """The scores of a data split, with our decoding and scoring."""
    dataset = experiment.workload.dataset
    model.eval()
    examples, features = dataset.examples[part], dataset.rows[part].features
    predictions = dataset.task.decode(examples, features, {"documents": model.documents(features)})
    return dataset.task.score(examples, predictions)
