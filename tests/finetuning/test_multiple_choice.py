"""A task of another kind in one file: several texts per example, compared with each other, by a module of its own."""
import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spanbert_jax
from spanbert_jax.commands.main import main
from spanbert_jax.corpus.blocks import best_fit
from spanbert_jax.finetuning.run import finetune
from spanbert_jax.inference.files import score_files
from spanbert_jax.model import ComputeConfig, ModelConfig
from spanbert_jax.model.losses import LossSums
from spanbert_jax.tasks import TASKS
from spanbert_jax.tasks.features import FeatureBuilder
from spanbert_jax.tasks.files import reading
from spanbert_jax.tasks.packing import PackedRows, row_length
from spanbert_jax.tasks.protocol import Program, Task, select_inputs
from spanbert_jax.text import special_ids, special_tokens_as_text
from tests.tasks.small import COLOURS, small_config, texts, write

LONGEST = 4  # choices


@dataclasses.dataclass(frozen=True)
class Choice:
    id: str
    location: str
    group: str
    text: str
    choices: tuple[str, ...]
    answer: int | None = None


class ChoiceScorer(nn.Module):
    """An encoder and a score for each text of a row."""
    config: ModelConfig
    compute: ComputeConfig

    def setup(self):
        self.encoder = self.config.make_encoder(self.compute)
        kernel = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("embed", None))
        self.score = nn.Dense(1, use_bias=False, kernel_init=kernel)

    @property
    def dummy_inputs(self):
        ones = jnp.ones((1, 1), jnp.int32)
        return {"tokens": ones, "segments": ones, "token_types": 0 * ones, "first": 0 * ones}

    def __call__(self, tokens, segments, token_types, first, deterministic=True):
        """[R, S] tokens, segments and token types and [R, K] first positions -> [R, K] scores."""
        hidden = self.encoder(tokens, segments, token_types, deterministic=deterministic)
        return self.score(jnp.take_along_axis(hidden, first[..., None], axis=1))[..., 0].astype(jnp.float32)


class MultipleChoice(Task):
    """Scores each choice as a text of its own; all choices of an example are in one row, so that they are compared."""
    metric, label_fields = "accuracy", ("example", "correct")

    def read(self, path, issues, with_labels=True):
        for location, record in reading.json_lines(path, issues):
            yield self._example(record, location, with_labels)

    def example(self, inputs, location, issues):
        return self._example(inputs, location, False)

    def _example(self, record, location, with_labels):
        answer = reading.field(record, "answer", location, int) if with_labels else None
        choices = tuple(reading.field(record, "choices", location, list))
        return Choice(location, location, location, reading.field(record, "text", location), choices, answer)

    def features(self, examples, tokenizer, issues, with_labels=True):
        builder, special, plain = FeatureBuilder(), special_ids(tokenizer), special_tokens_as_text(tokenizer)
        for number, example in enumerate(examples):
            text = plain.encode(example.text, add_special_tokens=False).ids
            for index, choice in enumerate(example.choices):
                ids = plain.encode(choice, add_special_tokens=False).ids
                first = [special.cls, *text[:self.settings.length - len(ids) - 3], special.sep]
                columns = {"example": number, "correct": index == example.answer} if with_labels else None
                builder.add(number, [*first, *ids, special.sep], [0] * len(first) + [1] * (len(ids) + 1), columns)
        return builder.build({"example": np.int32, "correct": np.float32} if with_labels else None)

    def pack(self, features, pad, seed):
        length = LONGEST * row_length(np.concatenate([part.lengths for part in features.values()]))
        packed = {}
        for name, part in features.items():
            groups = part.by_example(int(part.example[-1]) + 1)
            sizes = np.array([part.lengths[group.start:group.stop].sum() for group in groups])
            bins = [[feature for group in items for feature in groups[group]] for items in best_fit(sizes, length, 8)]
            packed[name] = PackedRows(part, bins, length, pad, self.label_fields, 8 * LONGEST)
        return packed

    def build_model(self, encoder, compute, tokenizer):
        return ChoiceScorer(encoder, compute)

    def apply(self, model, params, batch, dropout_key=None):
        return model.apply({"params": params}, **select_inputs(batch), deterministic=dropout_key is None,
                           rngs={} if dropout_key is None else {"dropout": dropout_key})

    def loss(self, outputs, batch):
        """Cross-entropy of the correct choice among the choices of its example."""
        real = batch["weights"] > 0
        same = (batch["example"][:, :, None] == batch["example"][:, None, :]) & real[:, :, None] & real[:, None, :]
        scores = jnp.where(same, outputs[:, None, :], -1e9)  # [R, K, K]
        correct = batch["correct"] * batch["weights"]
        best = (outputs >= scores.max(axis=-1)).astype(jnp.float32)
        losses = jax.nn.logsumexp(scores, axis=-1) - outputs
        return LossSums(jnp.sum(losses * correct), jnp.sum(best * correct), jnp.sum(correct))

    def program(self, model, tokenizer):
        return Program(lambda params, batch: {"scores": self.apply(model, params, batch)}, select_inputs, per_text=True)

    def decode(self, examples, features, outputs):
        choices = features.by_example(len(examples))
        return [{"id": example.id, "answer": int(np.argmax(outputs["scores"][group.start:group.stop])),
                 "scores": outputs["scores"][group.start:group.stop].tolist()}
                for example, group in zip(examples, choices, strict=True)]

    def score(self, examples, predictions):
        right = [prediction["answer"] == example.answer for example, prediction in zip(examples, predictions)]
        return {"accuracy": 100.0 * float(np.mean(right))}


def records(count, seed=0):
    """Texts with two to four choices, of which one is the text's colour."""
    random, found = np.random.default_rng(seed), []
    for text in texts(count, seed):
        others = [colour for colour in (*COLOURS, "stone") if colour != text["label"]]
        choices = [text["label"], *random.permutation(others)[:random.integers(1, LONGEST)]]
        order = random.permutation(len(choices))
        found.append({"text": text["text"], "choices": [str(choices[index]) for index in order],
                      "answer": int(np.argwhere(order == 0)[0, 0])})
    return found


def test_choices_are_learned_predicted_and_evaluated(start, tmp_path, monkeypatch, one_device):
    monkeypatch.setitem(TASKS._registered, "multiple_choice_toy", MultipleChoice)
    train, dev = (write(tmp_path / f"{part}.jsonl", records(count, seed))
                  for part, count, seed in (("train", 600, 0), ("dev", 60, 1)))
    config = small_config("multiple_choice_toy", start, train, dev=dev, length=32)
    config.train.duration, config.train.batch_size, config.evaluation.every = "250 steps", 32, "125 steps"
    finetune(config, tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())["dev"]
    chance = 100 * np.mean([1 / len(record["choices"]) for record in records(60, 1)])
    assert results["accuracy"] > chance + 30
    metrics, _ = score_files(tmp_path / "run", dev)
    assert metrics == results
    out = str(tmp_path / "out")  # an export has the task and its own parameters
    assert main(["export", "--workdir", str(tmp_path / "run"), "--format", "huggingface", "--out", out]) == 0
    assert score_files(out, dev)[0] == results
    call = spanbert_jax.pipeline("multiple-choice-toy", tmp_path / "run")
    first, *_ = records(60, 1)
    predictions = [call(text=first["text"], choices=choices) for choices in (first["choices"], first["choices"][::-1])]
    # The order of the choices changes no score.
    assert predictions[0]["scores"] == pytest.approx(predictions[1]["scores"][::-1], abs=1e-5)
