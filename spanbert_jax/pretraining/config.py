"""The fields of a pretraining experiment, their defaults, and their validation."""
from __future__ import annotations

import ml_collections

from spanbert_jax.masking import MaskingSettings
from spanbert_jax.masking.validation import validate as validate_masking
from spanbert_jax.model import SIZES, ModelConfig
from spanbert_jax.training.config import SHAPE, check_ranges, choose, require, shared_defaults, validate_run


def default_config() -> ml_collections.ConfigDict:
    """Every field with its default. A file under configs/ starts from this and changes what it is about."""
    config = shared_defaults()
    config.data = data = ml_collections.ConfigDict()
    data.path = ""  # a prepared corpus; or leave empty and give sources, prepared into WORKDIR/data
    data.sources = ()  # files, folders, globs, "python" or "tfds:NAME"
    data.format = "auto"
    data.text_field = "text"
    data.annotation_field = ""
    data.tokenizer = ""  # vocab.txt, tokenizer.json or a folder holding one; or leave empty and give vocab_size
    data.vocab_size = 0
    data.length = 512  # S
    data.blocks = "sentences"
    data.pack = False
    data.validation_fraction = 0.01
    data.short_sequence_probability = 0.0

    config.masking = ml_collections.ConfigDict(vars(MaskingSettings()))

    config.objectives = objectives = ml_collections.ConfigDict()
    objectives.boundary_weight = 1.0  # 0 leaves the boundary head out
    objectives.next_sentence = False  # needs data.blocks = "pairs"
    objectives.reference_denominators = False

    config.evaluation.max_rows = 8192
    return config


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks every field of a pretraining run, and the combinations of them, before any work is done.

    Raises:
      UserError: one line with the field, its value and what is allowed.
    """
    data = config.data
    validate_masking(masking_settings(config))
    choose(config, "data.blocks", ("sentences", "contiguous", "pairs"))
    choose(config, "model.size", tuple(SIZES))
    check_ranges(
        config, shares=("data.validation_fraction", "data.short_sequence_probability"),
        at_least_one=("evaluation.max_rows", "data.length", "model.max_positions", "model.boundary_features",
                      "model.token_types"),
        not_negative=(*(f"model.{name}" for name in SHAPE), "objectives.boundary_weight"))
    require(config.model.layer_norm_epsilon > 0, "model.layer_norm_epsilon", config.model.layer_norm_epsilon,
            "must be above 0")
    validate_run(config)
    network = model_config(config, vocab_size=1)
    require(network.width % network.num_heads == 0, "model.num_heads", config.model.num_heads,
            f"{network.num_heads} heads do not divide the width {network.width}; set model.num_heads or model.width")
    require(not config.objectives.next_sentence or bool(data.path) or data.blocks == "pairs",
            "objectives.next_sentence", True, f"needs data.blocks='pairs', which is {data.blocks!r}")
    require(bool(data.path) or data.length <= config.model.max_positions, "data.length", data.length,
            f"must be at most model.max_positions={config.model.max_positions}")
    require(not (data.pack and data.blocks == "pairs"), "data.pack", True, "pairs are not packed; set it to False")
    require(bool(data.path) != bool(data.sources), "data.path", data.path,
            "give either a prepared corpus here or data.sources, not both and not neither")
    require(not data.path or not (data.tokenizer or data.vocab_size), "data.path", data.path,
            "a prepared corpus has its own tokenizer; leave data.tokenizer and data.vocab_size empty")
    require(bool(data.path) or bool(data.tokenizer) != bool(data.vocab_size), "data.tokenizer", data.tokenizer,
            "give either a tokenizer here or data.vocab_size to train one, not both and not neither")


def masking_settings(config: ml_collections.ConfigDict) -> MaskingSettings:
    """The masking that a config asks for."""
    return MaskingSettings(**config.masking.to_dict())


def model_config(config: ml_collections.ConfigDict, vocab_size: int) -> ModelConfig:
    """The network that a config asks for, with the heads that its objectives need; attention is plain where "auto"."""
    fields = config.model.to_dict()
    if fields["attention"] == "auto":
        del fields["attention"]
    for name in SHAPE:
        if not fields[name]:
            del fields[name]
    return ModelConfig.named(
        fields.pop("size"), vocab_size=vocab_size, boundary_head=config.objectives.boundary_weight > 0,
        boundary_positions=config.masking.max_span_positions, next_sentence_head=config.objectives.next_sentence,
        gradient_dtype=config.train.gradient_dtype,
        **fields)
