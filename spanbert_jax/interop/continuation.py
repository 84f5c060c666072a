"""Stored weights adapted to a model with other positions, another vocabulary or further heads."""
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop import weights
from spanbert_jax.interop.naming import NamedTensors
from spanbert_jax.interop.pretrained import Pretrained, find_tokenizer
from spanbert_jax.interop.vocabulary import Transplant, transplant
from spanbert_jax.model import Decoder, EncoderModel, PretrainingHeads
from spanbert_jax.text import vocabulary_size

logger = logging.getLogger("spanbert_jax")

Change = Callable[[np.ndarray], np.ndarray]


class _Adapted:
    """Tensors, some of which change when they are read: to a number of rows, by a function."""

    def __init__(self, tensors: NamedTensors, changes: dict[str, tuple[int, Change]]):
        self.path, self.where = tensors.path, tensors.where
        self._tensors, self._changes = tensors, changes
        self.shapes = dict(tensors.shapes) | {
            name: (rows, *tensors.shapes[name][1:]) for name, (rows, _) in changes.items() if name in tensors.shapes}

    def read(self, name: str) -> np.ndarray:
        """One tensor."""
        value = self._tensors.read(name)
        return self._changes[name][1](value) if name in self._changes else value


def initial_params(pretrained: Pretrained, model: EncoderModel | Decoder, tokenizer: Tokenizer,
                   seed: int) -> dict[str, Any]:
    """Returns initial parameters of a model from stored weights.

    Heads that are not stored are new. Positions beyond the stored ones repeat those from the first on; places of the
    boundary head beyond the stored ones repeat the last. Rows of new vocabulary entries are the mean of the rows of the
    tokens that the stored vocabulary splits them into. The log reports each of these.

    The model has the same shape, or fewer layers; `tokenizer` is the model's; `seed` is for new heads and new rows.
    Raises UserError if the stored vocabulary is unknown, or a tensor does not fit.
    """
    pretrained.tensors.check_ties()
    config, old, tensors = model.config, pretrained.config, pretrained.tensors
    stored = pretrained.head
    if isinstance(model, Decoder) or (model.head.name, model.head.labels) != (stored.name, stored.labels):
        tensors = tensors.without("classification_head")  # of other classes
    names, changes = tensors.names, {}
    learned = "encoder/embeddings/position" in names.modules
    if learned:
        positions = np.arange(config.max_positions) % old.max_positions
        changes[names.tensor("encoder/embeddings/position", "embedding")] = len(positions), lambda rows: rows[positions]
    if isinstance(model, EncoderModel) and isinstance(model.head, PretrainingHeads):
        places = np.minimum(np.arange(model.head.boundary_positions),
                            pretrained.stored.pretraining.boundary_positions - 1)
        changes[names.tensor("boundary_head/place", "embedding")] = len(places), lambda rows: rows[places]
    if learned and config.max_positions != old.max_positions:
        logger.warning("positions: %d in %s, %d here%s", old.max_positions, pretrained.path, config.max_positions,
                       "; further ones repeat the old" * (config.max_positions > old.max_positions))
    if plan := _plan_vocabulary(pretrained, tokenizer):
        # Tensors with a row for each vocabulary entry.
        for name in (names.embedding, names.tensor("masked_token_head/output", "bias"),
                     names.tensor("boundary_head/output", "bias")):
            changes[name] = config.vocab_size, lambda rows: plan.apply(rows, config.initializer_range, seed)
    return weights.load(model, _Adapted(tensors, changes), seed)


def _plan_vocabulary(pretrained: Pretrained, tokenizer: Tokenizer) -> Transplant | None:
    """Returns the plan from the stored vocabulary to another one; None if they are equal."""
    old, why_none = find_tokenizer(pretrained)
    if old is None:
        if pretrained.config.vocab_size != vocabulary_size(tokenizer):
            raise UserError(f"{why_none}: without it the {pretrained.config.vocab_size:,} vocabulary entries are "
                            f"unknown, and the corpus has {vocabulary_size(tokenizer):,}")
        logger.warning("%s has no tokenizer: its %s vocabulary entries are taken to be those of the corpus",
                       pretrained.path, f"{pretrained.config.vocab_size:,}")
        return None
    if old.get_vocab(with_added_tokens=True) == tokenizer.get_vocab(with_added_tokens=True):
        return None
    plan = transplant(old, tokenizer)
    logger.warning("vocabulary: %s entries kept, %s new ones from the mean of their old tokens, %s drawn at random",
                   f"{plan.kept:,}", f"{plan.composed:,}", f"{plan.drawn:,}")
    return plan
