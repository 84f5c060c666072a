"""Tasks whose output is a text that a decoder generates."""
import dataclasses
import functools
import math
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.common.settings import require, setting
from spanbert_jax.generation.incremental import IncrementalDecoder, unstack_layers
from spanbert_jax.generation.search import generate
from spanbert_jax.generation.settings import GenerationSettings
from spanbert_jax.interop import weights
from spanbert_jax.interop.continuation import initial_params as adapted_params
from spanbert_jax.interop.encoder_decoder import load_encoder_decoder, open_decoder, save_encoder_decoder
from spanbert_jax.interop.layout import build
from spanbert_jax.interop.pretrained import check_entries, open_pretrained
from spanbert_jax.interop.sources.location import locate
from spanbert_jax.model import (
    BertConfig,
    ComputeConfig,
    Decoder,
    EncoderDecoder,
    EncoderModel,
    ModelConfig,
    Outputs,
    decoder_step_flops,
    merge_tied_params,
    split_tied_params,
)
from spanbert_jax.model.losses import LossSums, weighted_sums
from spanbert_jax.tasks import seq2seq_import
from spanbert_jax.tasks.features import FeatureBuilder, Features
from spanbert_jax.tasks.files.reading import describe_location
from spanbert_jax.tasks.packing import PackedRows, rounded_length
from spanbert_jax.tasks.packing_pairs import pack_pairs, row_lengths
from spanbert_jax.tasks.protocol import NOT_FINITE, FittedState, LossEvaluation, Prediction, Program, Task, TaskSettings
from spanbert_jax.tasks.tokenizing import encode_texts
from spanbert_jax.text import MAX_VOCAB_SIZE, parse_tokenizer, special_ids, vocabulary_size
from spanbert_jax.text.targets import MIN_TARGET_VOCAB_SIZE, load_target_tokenizer, target_ids, train_target_tokenizer

# Initial decoders besides directories of decoders.
_LONGEST_TARGET = 512  # positions of a decoder whose encoder has more and learns none
DECODERS = ("encoder", "shared", "random")
# An `Example` with `source`, the input text, and `targets`, correct outputs, of which training uses the first; empty if
# unknown.
Pair = Any
_SHORTEST = 3  # tokens of a source: [CLS], one token, [SEP]
# Settings of `GenerationSettings` with the same names.
_SEARCH = ("min_length", "beams", "length_penalty", "early_stopping", "no_repeat_ngram", "sample", "temperature",
           "top_k", "top_p")


@dataclasses.dataclass(frozen=True)
class Seq2SeqSettings(TaskSettings):
    """Settings of tasks that generate text."""
    length: int = setting(128, "Maximum number of source tokens, special tokens included.", minimum=_SHORTEST)
    target_length: int = setting(64, "Maximum number of generated tokens, the end token included.", minimum=2)
    decoder: str = setting("encoder", "Initial decoder: 'encoder' (a copy of the encoder), 'shared' (the encoder "
                           "itself), 'random', or a directory of a GPT-2 or EncoderDecoderModel with its tokenizer.")
    decoder_layers: int = setting(0, "Number of decoder layers, the lowest ones; 0 keeps all.", minimum=0)
    target_vocabulary: str = setting("", "Vocabulary of the targets: '' for the source's; a tokenizer's file or "
                                     "directory; or a number of byte-level tokens to train on the targets.")
    label_smoothing: float = setting(0.1, "Probability spread over the whole vocabulary.", minimum=0, below=1)
    beams: int = setting(4, "Number of beams.", minimum=1, overridable=True)
    length_penalty: float = setting(1.0, "Exponent of the length that divides a beam's log-probability.",
                                    minimum=-10, maximum=10, overridable=True)
    early_stopping: bool = setting(False, "Stop as soon as `beams` hypotheses have ended.", overridable=True)
    no_repeat_ngram: int = setting(0, "N-grams of this size occur only once; 0 allows all.", minimum=0,
                                   overridable=True)
    min_length: int = setting(0, "Minimum number of tokens before the end token.", minimum=0, overridable=True)
    sample: bool = setting(False, "Sample tokens instead of taking the most likely ones.", overridable=True)
    temperature: float = setting(1.0, "Sampling temperature.", minimum=1e-3, maximum=1e3, overridable=True)
    top_k: int = setting(0, "Sample from the k most likely tokens; 0 for all.", minimum=0, overridable=True)
    top_p: float = setting(1.0, "Sample from the most likely tokens with this total probability.", above=0, maximum=1,
                           overridable=True)
    seed: int = setting(0, "Seed of sampling.", minimum=0, below=1 << 32, overridable=True)

    def validate(self, path: str) -> None:
        super().validate(path)
        wanted = self.target_vocabulary
        require(self.min_length < self.target_length, f"{path}.min_length", self.min_length,
                f"must be below target_length={self.target_length}")
        require(self.beams == 1 or not self.sample, f"{path}.beams", self.beams, "must be 1 with sample=True")
        require(not wanted.isdigit() or MIN_TARGET_VOCAB_SIZE <= int(wanted) <= MAX_VOCAB_SIZE,
                f"{path}.target_vocabulary", wanted,
                f"must be at least {MIN_TARGET_VOCAB_SIZE} and at most {MAX_VOCAB_SIZE} if it is a number")
        require(not wanted or self.decoder in DECODERS, f"{path}.target_vocabulary", wanted,
                "must be empty with a decoder from a directory, which has its own tokenizer")
        require(not wanted or self.decoder != "shared", f"{path}.target_vocabulary", wanted,
                "must be empty with decoder='shared'")


@dataclasses.dataclass(frozen=True)
class Seq2SeqState(FittedState):
    """Fitted state of tasks that generate text."""
    target_tokenizer: str = ""  # tokenizer of the targets as JSON; empty if it is the source's


class Seq2SeqTask(Task[Pair]):
    """Reads a text and generates another.

    Checkpoints are compared by the likelihood of the dev targets: generating texts takes many times as long and is done
    once, at the end. `field` is the name of the generated text in predictions.
    """
    Settings, Fitted = Seq2SeqSettings, Seq2SeqState
    label_fields = ()
    field: str

    def fit(self, examples: Sequence[Pair], tokenizer: Tokenizer) -> Self:
        """Finds or trains the tokenizer of the targets. Raises UserError if it does not exist."""
        wanted, decoder = self.settings.target_vocabulary, self.settings.decoder
        try:
            if decoder not in DECODERS:
                expected = (f"decoder={decoder!r}: neither {', '.join(DECODERS)} nor the directory of a decoder with "
                            "its tokenizer")
                found = load_target_tokenizer(locate(decoder))
            elif not wanted:
                return self
            else:
                expected = f"target_vocabulary={wanted!r}: neither a number nor a tokenizer's file or directory"
                found = (train_target_tokenizer([example.targets[0] for example in examples], int(wanted))
                         if wanted.isdigit() else load_target_tokenizer(wanted))
        except UserError as error:
            raise UserError(f"config.task.{expected} ({error})") from None
        return self.with_fitted(target_tokenizer=found.to_str())

    def target_tokenizer(self, tokenizer: Tokenizer) -> Tokenizer:
        """The tokenizer of the targets, given the source's."""
        return self._own_tokenizer or tokenizer

    @functools.cached_property
    def _own_tokenizer(self) -> Tokenizer | None:
        stored = self.fitted.target_tokenizer
        return parse_tokenizer(stored, "the task's target_tokenizer") if stored else None

    def generation(self, tokenizer: Tokenizer) -> GenerationSettings:
        """How texts are generated."""
        ids = target_ids(self.target_tokenizer(tokenizer))
        return GenerationSettings(ids.start, ids.end, ids.pad, self.settings.target_length,
                                  **{name: getattr(self.settings, name) for name in _SEARCH})

    def features(self, examples: Sequence[Pair], tokenizer: Tokenizer, issues: DataIssues,
                 with_labels: bool = True) -> Features:
        """One feature per example: [CLS] source [SEP]; its labels are the first target between start and end token.

        Texts that are too long are truncated at the end. Text that spells a special token is ordinary text.
        """
        special, room, builder = special_ids(tokenizer), self.settings.length - 2, FeatureBuilder()
        target, ids = self.target_tokenizer(tokenizer), target_ids(self.target_tokenizer(tokenizer))
        sources = encode_texts([example.source for example in examples], tokenizer, self.settings.length)
        if with_labels:
            targets = encode_texts([example.targets[0] for example in examples], target, self.settings.target_length)
        for number, (example, encoding) in enumerate(zip(examples, sources, strict=True)):
            source, labels = encoding.ids[:self.settings.length], None
            self._count_source(example, source, special.unk, issues)
            if with_labels:
                wanted = next(targets).ids[:self.settings.target_length]
                labels = [ids.start, *self._label(example, wanted, target, ids.unknown, issues), ids.end]
            tokens = [special.cls, *source[:room], special.sep]
            builder.add(number, tokens, [0] * len(tokens), labels=labels)
        return builder.build()

    def _count_source(self, example: Pair, tokens: list[int], unknown: int, issues: DataIssues) -> None:
        if len(tokens) > self.settings.length - 2:
            issues.add("sources longer than config.task.length, truncated at the end", describe_location(example))
        if example.source.strip() and not tokens:
            issues.add("sources that the tokenizer maps to no token", describe_location(example))
        if unknown in tokens:
            issues.add("sources with words outside the vocabulary, read as [UNK]", describe_location(example))

    def _label(self, example: Pair, tokens: list[int], tokenizer: Tokenizer, unknown: int | None,
               issues: DataIssues) -> list[int]:
        """The tokens of a target that training uses, given all, or one more than those."""
        room, text = self.settings.target_length - 1, example.targets[0].strip()
        decoded = tokenizer.decode(tokens, skip_special_tokens=False).strip()
        if len(tokens) > room:
            issues.add("targets longer than config.task.target_length, truncated at the end",
                       describe_location(example))
        if unknown is not None and unknown in tokens:
            issues.add("targets with words outside the target vocabulary, learned as [UNK]", describe_location(example))
        elif not tokens:
            issues.add("targets that the target tokenizer maps to no token", describe_location(example))
        elif not (text.startswith(decoded.rstrip("\ufffd")) if len(tokens) > room else decoded == text):
            issues.add("targets whose capitals, accents or spaces the target vocabulary loses; "
                       "config.task.target_vocabulary=8000 keeps them", describe_location(example))
        return tokens[:room]

    def pack(self, features: Mapping[str, Features], pad: int, seed: int) -> dict[str, PackedRows]:
        """Rows of sources with rows of targets."""
        lengths = row_lengths(list(features.values()))
        return {name: pack_pairs(part, *lengths, pad, seed) for name, part in features.items()}

    def build_model(self, encoder: ModelConfig, compute: ComputeConfig, tokenizer: Tokenizer) -> EncoderDecoder:
        """The encoder with the decoder of the settings. Raises UserError if it is too small or not of its tokenizer."""
        kind, wanted = self.settings.decoder, self.settings.decoder_layers
        size = vocabulary_size(self.target_tokenizer(tokenizer))
        if kind in DECODERS:
            decoder: ModelConfig = _decoder_like(encoder, kind, size)
        else:
            decoder, *_ = open_decoder(kind, encoder.width)
            if size > decoder.vocab_size:
                raise UserError(f"config.task.decoder={kind!r}: its tokenizer has {size:,} tokens and its model "
                                f"{decoder.vocab_size:,}; they do not belong together")
            decoder = dataclasses.replace(decoder, dropout=encoder.dropout, attention_dropout=encoder.attention_dropout)
        if wanted > decoder.num_layers or (wanted and kind == "shared"):
            raise UserError(f"config.task.decoder_layers={wanted}: the decoder has {decoder.num_layers}; use fewer, or "
                            f"0 for all{', as required with decoder=shared' * (kind == 'shared')}")
        if self.settings.target_length > decoder.max_positions:
            raise UserError(f"config.task.target_length={self.settings.target_length}: the decoder has "
                            f"{decoder.max_positions} positions; use at most that many")
        decoder = dataclasses.replace(decoder, num_layers=wanted or decoder.num_layers)
        return EncoderDecoder(encoder, decoder, kind == "shared", compute)

    def initial_params(self, model: EncoderDecoder, init_from: str, tokenizer: Tokenizer, seed: int) -> dict[str, Any]:
        """Initial float32 parameters on the host; new ones are logged.

        As in Rothe et al. (2020), parameters that encoder and decoder have in common come from the encoder, and the
        cross-attention is new.
        """
        kind, pretrained, decoder = self.settings.decoder, open_pretrained(init_from), Decoder(model.decoder_config)
        encoder = adapted_params(pretrained, EncoderModel(model.config), tokenizer, seed)["encoder"]
        bridge: Mapping[str, Any] | None = None
        if kind in ("encoder", "shared"):
            own = adapted_params(pretrained, decoder, self.target_tokenizer(tokenizer), seed)
        elif kind == "random":
            random = np.random.default_rng(seed)
            own = build(decoder, lambda leaf: weights.fresh(leaf, decoder.config.initializer_range, random))
        else:
            _, tensors, bridge = open_decoder(kind, model.config.width)
            own = weights.load(decoder, tensors, seed)
        params = {"encoder": encoder, "decoder": own}
        if model.config.width != model.decoder_config.width:
            params["bridge"] = bridge or _random_bridge(model.config.width, model.decoder_config, seed)
        return split_tied_params(params) if model.shared else params

    def apply(self, model: EncoderDecoder, params: Any, batch: Mapping[str, jax.Array],
              dropout_key: jax.Array | None = None) -> Outputs:
        """Logits [R, T, V] of each target token given those before it."""
        variables = {"params": merge_tied_params(params)}
        logits: Any = model.apply(variables, batch["tokens"], batch["segments"], batch["previous"],
                             batch["label_segments"], deterministic=dropout_key is None,
                             rngs={} if dropout_key is None else {"dropout": dropout_key})
        return Outputs(logits=logits)

    def loss(self, outputs: Any, batch: Mapping[str, jax.Array]) -> LossSums:
        """Label-smoothed cross-entropy of each target token given those before it."""
        return _smoothed_loss(outputs, batch, self.settings.label_smoothing)

    @property
    def loss_evaluation(self) -> LossEvaluation:
        """Loss, log-likelihood, perplexity and accuracy of the dev targets' tokens, without label smoothing."""
        def metrics(loss: float, correct: float, count: float) -> dict[str, float]:
            return {"loss": loss / count, "log_likelihood": -loss / count,
                    "perplexity": math.exp(min(loss / count, 700.0)), "accuracy": 100.0 * correct / count,
                    "tokens": int(count)}

        return LossEvaluation("log_likelihood", lambda outputs, batch: _smoothed_loss(outputs, batch, 0.0), metrics)

    def step_flops(self, model: EncoderDecoder, rows: Any, count: int) -> float:
        """Model FLOPs of encoder and decoder."""
        return (super().step_flops(model, rows, count)
                + decoder_step_flops(model.decoder_config, count, rows.label_length, rows.length))

    def program(self, model: EncoderDecoder, tokenizer: Tokenizer) -> Program:
        """Generates a text per source. Random draws for a source depend only on its tokens."""
        settings, seed = self.generation(tokenizer), self.settings.seed
        target = self.target_tokenizer(tokenizer)

        def compute(params: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            keys = jax.vmap(lambda number: jax.random.fold_in(jax.random.key(seed), number))(batch["checksum"])
            tokens, scores = generate(IncrementalDecoder(model, params), batch["tokens"], batch["segments"], settings,
                                      keys)
            return {"tokens": tokens[:, None], "scores": scores[:, None]}

        def inputs(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            checksums = [zlib.crc32(tokens.tobytes()) for tokens in batch["tokens"]]
            return {"tokens": batch["tokens"], "segments": batch["segments"],
                    "checksum": np.array(checksums, np.uint32)}

        def finish(outputs: dict[str, np.ndarray], features: Features, params: Any) -> dict[str, Any]:
            texts = target.decode_batch(outputs["tokens"].tolist(), skip_special_tokens=True)
            return {"texts": [text.strip() for text in texts], "scores": outputs["scores"].tolist()}

        return Program(compute, inputs, per_text=True, prepare_params=unstack_layers, finish=finish, local=True)

    def prediction_rows(self, features: Features, pad: int) -> list[PackedRows]:
        """One source per row; sources of about the same length together."""
        lengths = np.array([rounded_length(length) for length in features.lengths.tolist()], np.int64)
        return [PackedRows(features, [[number] for number in np.flatnonzero(lengths == length).tolist()], length, pad)
                for length in np.unique(lengths).tolist()]

    def decode(self, examples: Sequence[Pair], features: Features, outputs: Mapping[str, Any]) -> list[Prediction]:
        """{"id", `field`, "score"}: the generated text and its score in the search.

        The text for a source without tokens is empty; "note" says so, or that the scores are not finite. `outputs` has
        "texts" and "scores", one per example.
        """
        predictions = []
        for example, text, score, length in zip(examples, outputs["texts"], outputs["scores"], features.lengths,
                                                strict=True):
            empty = length < _SHORTEST
            note = "the source has no token" if empty else NOT_FINITE if not math.isfinite(score) else ""
            rest = {"score": None, "note": note} if note else {"score": score}
            predictions.append({"id": example.id, self.field: "" if empty else text, **rest})
        return predictions

    def files(self, examples: Sequence[Pair], predictions: Sequence[Prediction]) -> dict[str, str]:
        """The generated texts, one per line, as `FIELD.txt`."""
        lines = [" ".join(prediction[self.field].split()) + "\n" for prediction in predictions]
        return {f"{self.field}.txt": "".join(lines)}

    def save_weights(self, folder: pathlib.Path, model: EncoderDecoder, params: Any, tokenizer: Tokenizer) -> None:
        """Writes a directory of an EncoderDecoderModel with both tokenizers."""
        target = self.target_tokenizer(tokenizer)
        save_encoder_decoder(model, params, folder, self.generation(tokenizer), tokenizer,
                             None if target is tokenizer else target)

    def load_weights(self, folder: pathlib.Path, dtype: str, tokenizer: Tokenizer) -> tuple[EncoderDecoder, Any]:
        """Model and parameters of an EncoderDecoderModel."""
        model, params = load_encoder_decoder(folder, dtype)
        check_entries(self.target_tokenizer(tokenizer), model.decoder_config.vocab_size,
                      f"{folder}: its target tokenizer")
        return model, params

    @classmethod
    def import_model(cls, folder: pathlib.Path,
                     tokenizer: str | pathlib.Path) -> tuple[Task, EncoderDecoder, Any, Tokenizer]:
        """An EncoderDecoderModel that was fine-tuned elsewhere; it generates as its files say."""
        return seq2seq_import.import_model(cls, folder, tokenizer)


def _decoder_like(encoder: ModelConfig, kind: str, vocab_size: int) -> ModelConfig:
    """The config of a decoder of the encoder's shape. Raises UserError if it cannot begin from the encoder's layers."""
    if encoder.decodes:
        return dataclasses.replace(encoder, vocab_size=vocab_size)
    if kind != "random":
        raise UserError(f"config.task.decoder={kind!r}: no decoder has the layers of {encoder.architecture}; use "
                        "'random', or the directory of a GPT-2 or of an EncoderDecoderModel")
    return BertConfig(vocab_size, encoder.num_layers, encoder.width, encoder.num_heads, 4 * encoder.width,
                      min(encoder.max_positions, _LONGEST_TARGET), 1, encoder.dropout, encoder.attention_dropout)


def _smoothed_loss(outputs: Any, batch: Mapping[str, jax.Array], smoothing: float) -> LossSums:
    log_probabilities = jax.nn.log_softmax(outputs.logits)
    weights = (batch["label_segments"] != 0).astype(jnp.float32)
    target = jnp.take_along_axis(log_probabilities, batch["labels"][..., None], axis=-1)[..., 0]
    losses = -(1 - smoothing) * target - smoothing * jnp.mean(log_probabilities, axis=-1)
    correct = (target >= jnp.max(log_probabilities, axis=-1)).astype(jnp.float32)
    return weighted_sums(losses, correct, weights)


def _random_bridge(width: int, decoder: ModelConfig, seed: int) -> Mapping[str, np.ndarray]:
    """The projection from the encoder's width to the decoder's."""
    kernel = np.random.default_rng(seed).standard_normal((width, decoder.width), np.float32)
    return {"kernel": kernel * np.float32(decoder.initializer_range), "bias": np.zeros(decoder.width, np.float32)}
