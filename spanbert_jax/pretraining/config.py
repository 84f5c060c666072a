"""The config of a pretraining run."""
import dataclasses

import ml_collections

from spanbert_jax.common.settings import Settings, require, setting, to_dict
from spanbert_jax.corpus.settings import CorpusSettings
from spanbert_jax.masking import MaskingSettings
from spanbert_jax.model import PretrainingHeads
from spanbert_jax.training.batch_warmup import BatchWarmup
from spanbert_jax.training.config import (
    EvaluationSettings,
    RunConfig,
    TrainSettings,
    as_typed,
    model_section,
    usual_values,
)
from spanbert_jax.training.durations import RunSize, parse_duration


@dataclasses.dataclass(frozen=True)
class DataSettings(CorpusSettings):
    """The corpus: a prepared one, or text that is prepared into WORKDIR/data."""
    path: str = setting("", "Directory of a prepared corpus; or leave it empty and give sources.",
                        replaces=["sources", "tokenizer", "vocab_size"])

    def validate(self, path: str) -> None:
        super().validate(path)
        require(bool(self.path) != bool(self.sources), f"{path}.path", self.path,
                "set either data.path, a prepared corpus, or data.sources; the other must be empty, such as "
                "--config.data.sources=")
        require(not self.path or not (self.tokenizer or self.vocab_size), f"{path}.path", self.path,
                "a prepared corpus has its own tokenizer; set data.tokenizer='' and data.vocab_size=0")
        require(bool(self.path) or bool(self.tokenizer) != bool(self.vocab_size), f"{path}.tokenizer", self.tokenizer,
                "set either data.tokenizer or data.vocab_size, which trains a tokenizer; the other must be '' or 0")


@dataclasses.dataclass(frozen=True)
class ObjectiveSettings(Settings):
    """Pretraining objectives besides masked tokens."""
    boundary_weight: float = setting(1.0, "Weight of the span boundary loss; 0 leaves the head out.", minimum=0)
    next_sentence: bool = setting(False, "Predict whether the second text of a pair continues the first; needs "
                                  "data.blocks='pairs'.")
    reference_denominators: bool = setting(False, "Divide the boundary loss by the number of targets plus one, as the "
                                           "reference does.")


@dataclasses.dataclass(frozen=True)
class PretrainingTrainSettings(TrainSettings):
    """Length of the run, and batches."""
    batch_warmup: str = setting("0 steps", "Length of the batch's growth at the start of the run: it uses one of its "
                                "train.accumulation parts first, then 2, 3 and so on, each for as many steps.",
                                check=lambda field, text: parse_duration(field, text, whole=False))

    def validate(self, path: str) -> None:
        super().validate(path)
        grows = parse_duration(f"{path}.batch_warmup", self.batch_warmup, whole=False) > 0
        require(not grows or self.accumulation > 1, f"{path}.batch_warmup", self.batch_warmup,
                "the batch grows by whole parts; set train.accumulation above 1, or train.batch_warmup='0 steps'")


@dataclasses.dataclass(frozen=True)
class PretrainingEvaluationSettings(EvaluationSettings):
    """Evaluation on held-out rows during the run."""
    max_rows: int = setting(8192, "Held-out rows that are evaluated at most.", minimum=1)
    masks: int = setting(1, "Masks of each row; the metrics are those of all together. More masks, less noise.",
                         minimum=1)
    example: bool = setting(False, "At the end of a run of one process, show how both heads fill a word of a held-out "
                            "text before and after training.")


@dataclasses.dataclass(frozen=True)
class PretrainingConfig(RunConfig):
    """The config of a pretraining run."""
    data: DataSettings = setting(DataSettings(), "The corpus.")
    masking: MaskingSettings = setting(MaskingSettings(), "Span masking.")
    objectives: ObjectiveSettings = setting(ObjectiveSettings(), "Objectives besides masked tokens.")
    train: PretrainingTrainSettings = setting(PretrainingTrainSettings(), "Length of the run, and batches.")
    evaluation: PretrainingEvaluationSettings = setting(PretrainingEvaluationSettings(), "Evaluation during the run.")

    def validate(self, path: str) -> None:
        super().validate(path)
        data, model = self.data, self.model.config(vocab_size=1)
        of_pairs = model.rotary_positions  # these rotate pairs of a head's elements
        require(model.width % (2 * model.num_heads if of_pairs else model.num_heads) == 0, f"{path}.model.num_heads",
                self.model.num_heads, f"{model.num_heads} heads do not divide the width {model.width}"
                f"{' into even widths, for rotary positions' * of_pairs}; set model.num_heads or model.width")
        require(not self.objectives.next_sentence or bool(data.path) or data.blocks == "pairs",
                f"{path}.objectives.next_sentence", True, f"needs data.blocks='pairs', which is {data.blocks!r}")
        from_weights = bool(self.init_from) and self.model.max_positions is None  # known when these are read
        require(bool(data.path) or from_weights or data.length <= model.max_positions, f"{path}.data.length",
                data.length, f"must be at most model.max_positions={model.max_positions}")


def default_config(architecture: str = "bert") -> ml_collections.ConfigDict:
    """Every field with its default. A config file starts from this and sets what differs.

    Args: architecture: whose own fields and defaults the section `model` has. Raises UserError if there is none.
    """
    return ml_collections.ConfigDict(to_dict(PretrainingConfig(model=model_section(architecture)())))


def as_pretraining_config(config: ml_collections.ConfigDict | PretrainingConfig) -> PretrainingConfig:
    """The typed config of a ConfigDict; a typed one as it is. Raises as `as_typed`."""
    return as_typed(config, PretrainingConfig)


def pretraining_heads(config: PretrainingConfig) -> PretrainingHeads:
    """The heads that the objectives need."""
    features = config.model.boundary_features or usual_values(config.model.architecture)["boundary_features"]
    return PretrainingHeads(config.objectives.boundary_weight > 0, config.masking.max_span_positions, features,
                            config.objectives.next_sentence)


def run_size(config: PretrainingConfig, length: int, rows: int) -> tuple[RunSize, BatchWarmup]:
    """Converts durations of a run over `rows` rows of `length` tokens, and says how its batch grows."""
    train = config.train
    size = RunSize(train.batch_size, length, rows)
    # Over its warmup the batch is half full on average.
    steps = size.steps("config.train.batch_warmup", train.batch_warmup, lambda batches: 2 * batches)
    return size, BatchWarmup(train.accumulation, steps)
