"""What tasks have in common whose answers are texts that a decoder writes."""
from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.generation.settings import GenerationSettings
from spanbert_jax.interop.sources.location import locate
from spanbert_jax.model import Outputs
from spanbert_jax.model.losses import LossSums, weighted_sums
from spanbert_jax.tasks.features import FeatureList, Features
from spanbert_jax.tasks.protocol import NOT_FINITE, Example, Prediction, Task, place_of
from spanbert_jax.text import special_ids, special_tokens_as_text
from spanbert_jax.text.targets import MIN_TARGET_VOCAB_SIZE, load_target_tokenizer, target_ids, train_target_tokenizer

_BATCH = 1024  # texts that are tokenised at once
_SHORTEST = 3  # of sources: [CLS], a piece, [SEP]
# Where decoders come from besides directories of GPT-2.
DECODERS = ("encoder", "shared", "random")
# Settings of `generation.Settings`, by the same names.
_SEARCH = ("min_length", "beams", "length_penalty", "early_stopping", "no_repeat_ngram", "sample", "temperature",
           "top_k", "top_p")


class Pair(Example, Protocol):
    """Attributes:
      source: the text to read.
      targets: texts any of which is right, the first of them the one to learn from; empty where none is known.
    """
    source: str
    targets: tuple[str, ...]


class Seq2SeqTask(Task):
    """Reads a text and writes another.

    Facts: "target_tokenizer", the tokenizer of what is written, as JSON, where it is not that of what is read.

    Attributes:
      field: name of what is written, in predictions.
    """
    head = "encoder_decoder"
    targets = ()
    free = (*_SEARCH, "seed")
    field: str

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Fields of `config.task`.

        target_length: pieces to write at most, the one that ends a text among them.
        decoder: what the decoder begins as: "encoder", a copy of the encoder; "shared", the encoder itself; "random";
          or a directory of a GPT-2, or of an EncoderDecoderModel, with its tokenizer. Attention to the encoder is new
          but for the last.
        decoder_layers: how many, the lowest of those that there are; 0 for all.
        target_vocabulary: "" for that of what is read; a tokenizer's file or directory; or a number, of byte-level
          pieces that are trained on the targets to learn from. A decoder of a directory has its own.
        label_smoothing: probability that is spread over the whole vocabulary.
        beams, length_penalty, early_stopping, no_repeat_ngram, min_length, sample, temperature, top_k, top_p: as
          `generation.Settings` has them; what is said of several beams, or of drawing, does not count without.
        seed: of what is drawn.
        """
        return {"target_length": 64, "decoder": "encoder", "decoder_layers": 0, "target_vocabulary": "",
                "label_smoothing": 0.1, "beams": 4, "length_penalty": 1.0, "early_stopping": False,
                "no_repeat_ngram": 0, "min_length": 0, "sample": False, "temperature": 1.0, "top_k": 0, "top_p": 1.0,
                "seed": 0}

    def check_settings(self) -> None:
        settings, wanted = self.settings, str(self.settings["target_vocabulary"])
        for field, holds, allowed in (
                ("target_length", settings["target_length"] >= 2, "at least 2"),
                ("decoder_layers", settings["decoder_layers"] >= 0, "at least 0"),
                ("label_smoothing", 0 <= settings["label_smoothing"] < 1, "from 0 to below 1"),
                ("beams", settings["beams"] >= 1, "at least 1"),
                ("no_repeat_ngram", settings["no_repeat_ngram"] >= 0, "at least 0"),
                ("min_length", 0 <= settings["min_length"] < settings["target_length"],
                 f"from 0 to below target_length={settings['target_length']}"),
                ("length_penalty", -10 <= settings["length_penalty"] <= 10, "from -10 to 10"),
                ("temperature", 1e-3 <= settings["temperature"] <= 1e3, "from 0.001 to 1000"),
                ("top_k", settings["top_k"] >= 0, "at least 0"),
                ("top_p", 0 < settings["top_p"] <= 1, "above 0 and at most 1"),
                ("seed", 0 <= settings["seed"] < 1 << 32, "from 0 to 2**32 - 1"),
                ("length", settings.get("length", _SHORTEST) >= _SHORTEST, f"at least {_SHORTEST}"),
                ("beams", settings["beams"] == 1 or not settings["sample"], "1 where sample is true"),
                ("target_vocabulary", not wanted.isdigit() or int(wanted) >= MIN_TARGET_VOCAB_SIZE,
                 f"at least {MIN_TARGET_VOCAB_SIZE} where it is a number"),
                ("target_vocabulary", settings["decoder"] in DECODERS or not settings["target_vocabulary"],
                 "empty where the decoder is that of a directory, which has its own"),
                ("target_vocabulary", settings["decoder"] != "shared" or not settings["target_vocabulary"],
                 "empty where the decoder is the encoder itself")):
            if not holds:
                raise UserError(f"config.task.{field} is {settings[field]!r}; it must be {allowed}")

    def learn(self, examples: Sequence[Pair], tokenizer: Tokenizer) -> None:
        """Stores the tokenizer of what is written, where it is not that of what is read.

        Raises:
          UserError: when there is none at the place that is named.
        """
        wanted, decoder = str(self.settings["target_vocabulary"]), self.settings["decoder"]
        if decoder not in DECODERS:
            try:
                found = load_target_tokenizer(locate(decoder))
            except UserError as error:
                raise UserError(f"config.task.decoder is {decoder!r}: neither {', '.join(DECODERS)} nor the directory "
                                f"of a decoder with its tokenizer ({error})") from None
        elif wanted.isdigit():
            found = train_target_tokenizer([example.targets[0] for example in examples], int(wanted))
        elif wanted:
            try:
                found = load_target_tokenizer(wanted)
            except UserError as error:
                raise UserError(f"config.task.target_vocabulary is {wanted!r}: neither a number nor a tokenizer's file "
                                f"or directory ({error})") from None
        else:
            return
        self.facts["target_tokenizer"] = found.to_str()

    def target_tokenizer(self, tokenizer: Tokenizer) -> Tokenizer:
        """The tokenizer of what is written, given that of what is read."""
        return self._own_tokenizer or tokenizer

    @functools.cached_property
    def _own_tokenizer(self) -> Tokenizer | None:
        stored = self.facts.get("target_tokenizer")
        return Tokenizer.from_str(stored) if stored else None

    def generation(self, tokenizer: Tokenizer) -> GenerationSettings:
        """How texts are written."""
        ids = target_ids(self.target_tokenizer(tokenizer))
        return GenerationSettings(ids.start, ids.end, ids.pad, self.settings["target_length"],
                        **{name: self.settings[name] for name in _SEARCH})

    def features(self, examples: Sequence[Pair], tokenizer: Tokenizer, faults: DataIssues,
                 labelled: bool = True) -> Features:
        """One feature an example: [CLS], the source, [SEP]; and as labels the first target between start and end.

        What is too long is cut at the end. What a text spells like a special piece is text.
        """
        special, room, made = special_ids(tokenizer), self.settings["length"] - 2, FeatureList()
        target, ids = self.target_tokenizer(tokenizer), target_ids(self.target_tokenizer(tokenizer))
        reader, writer = special_tokens_as_text(tokenizer), special_tokens_as_text(target)
        for start in range(0, len(examples), _BATCH):
            batch = examples[start:start + _BATCH]
            sources = _encode(reader, [example.source for example in batch])
            written = _encode(writer, [example.targets[0] for example in batch]) if labelled else [[]] * len(batch)
            back = target.decode_batch(written, skip_special_tokens=False)
            for number, (example, source, labels, text) in enumerate(zip(batch, sources, written, back), start):
                if len(source) > room:
                    faults.add("sources longer than config.task.length, cut at the end", place_of(example))
                if example.source.strip() and not source:
                    faults.add("sources of which the vocabulary makes nothing", place_of(example))
                if special.unk in source:
                    faults.add("sources with words that the vocabulary lacks, read as [UNK]", place_of(example))
                tokens = [special.cls, *source[:room], special.sep]
                if labelled:
                    labels = [ids.start, *self._label(example, labels, text, ids.unknown, faults), ids.end]
                made.add(number, tokens, [0] * len(tokens), labels=labels if labelled else None)
        return made.features()

    def _label(self, example: Pair, pieces: list[int], text: str, unknown: int | None, faults: DataIssues) -> list[int]:
        """The pieces of a target that are learned; `text` is what they say."""
        room = self.settings["target_length"] - 1
        if len(pieces) > room:
            faults.add("targets longer than config.task.target_length, cut at the end", place_of(example))
        if unknown is not None and unknown in pieces:
            faults.add("targets with words that the target vocabulary lacks, taken for [UNK]", place_of(example))
        elif not pieces:
            faults.add("targets of which the target vocabulary makes nothing", place_of(example))
        elif text.strip() != example.targets[0].strip():
            faults.add("targets whose capitals, accents or spaces the target vocabulary does not keep, as one of "
                       "config.task.target_vocabulary=8000 does", place_of(example))
        return pieces[:room]

    def loss(self, outputs: Outputs, batch: Mapping[str, jax.Array]) -> LossSums:
        """Cross-entropy of each piece given those before it, smoothed."""
        chances = jax.nn.log_softmax(outputs.logits)
        weights = (batch["label_segments"] != 0).astype(jnp.float32)
        right = jnp.take_along_axis(chances, batch["labels"][..., None], axis=-1)[..., 0]
        smoothing = self.settings["label_smoothing"]
        losses = -(1 - smoothing) * right - smoothing * jnp.mean(chances, axis=-1)
        correct = (right >= jnp.max(chances, axis=-1)).astype(jnp.float32)
        return weighted_sums(losses, correct, weights)

    def decode(self, examples: Sequence[Pair], features: Features, outputs: Mapping[str, Any]) -> list[Prediction]:
        """{"id", `field`, "score"}: what is written, and how good the search holds it to be.

        Of a source without a piece nothing is written; "note" says so, or that the network's scores are not finite.

        Args:
          outputs: "texts" and "scores", n of each.
        """
        predictions = []
        for example, text, score, pieces in zip(examples, outputs["texts"], outputs["scores"], features.lengths,
                                                strict=True):
            empty = pieces < _SHORTEST
            note = "no piece in the source" if empty else NOT_FINITE if not math.isfinite(score) else ""
            rest = {"score": None, "note": note} if note else {"score": score}
            predictions.append({"id": example.id, self.field: "" if empty else text, **rest})
        return predictions

    def files(self, examples: Sequence[Pair], predictions: Sequence[Prediction]) -> dict[str, str]:
        """What is written, one a line, as `FIELD.txt`."""
        lines = [" ".join(prediction[self.field].split()) + "\n" for prediction in predictions]
        return {f"{self.field}.txt": "".join(lines)}


def _encode(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
