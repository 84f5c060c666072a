"""Weights made to fit a network with other positions, another vocabulary or further heads."""
from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop import weights
from spanbert_jax.interop.layout import EMBEDDING
from spanbert_jax.interop.naming import NamedTensors
from spanbert_jax.interop.pretrained import Pretrained, find_tokenizer
from spanbert_jax.interop.vocabulary import Transplant, transplant
from spanbert_jax.model import Decoder, EncoderModel

logger = logging.getLogger("spanbert_jax")
_POSITIONS = "bert.embeddings.position_embeddings.weight"
_PLACES = "cls.pair_target_predictions.position_embeddings.weight"
# What has a row for each piece.
_BY_PIECE = (EMBEDDING, "cls.predictions.bias", "cls.pair_target_predictions.bias")

Change = Callable[[np.ndarray], np.ndarray]


class _Adapted:
    """Tensors, some of them changed as they are read."""

    def __init__(self, tensors: NamedTensors, changes: dict[str, tuple[int, Change]]):
        """`changes`: the rows that a tensor then has, and how."""
        self.path, self.where = tensors.path, tensors.where
        self._tensors, self._changes = tensors, changes
        self.shapes = dict(tensors.shapes) | {
            name: (rows, *tensors.shapes[name][1:]) for name, (rows, _) in changes.items() if name in tensors.shapes}

    def read(self, name: str) -> np.ndarray:
        value = self._tensors.read(name)
        return self._changes[name][1](value) if name in self._changes else value


def initial_params(pretrained: Pretrained, model: EncoderModel | Decoder, tokenizer: Tokenizer,
                   seed: int) -> dict[str, Any]:
    """Parameters of `model`, which has the shape of the pretrained network, or fewer layers, to go on from.

    Heads that do not come with the weights are new. Positions beyond the old ones repeat those from the first on;
    places of the boundary head beyond the old ones repeat the last. Pieces that are new get the mean of the rows of
    their old pieces. The log says what of this has been done.

    Args:
      tokenizer: of the model; its ids count.
      seed: of what is drawn.

    Raises:
      UserError: when it is not clear what the old ids mean, or a tensor does not fit.
    """
    pretrained.tensors.check_ties()
    config, old, tensors = model.config, pretrained.config, pretrained.tensors
    if isinstance(model, Decoder) or (model.head, model.labels) != (pretrained.head, pretrained.labels):
        tensors = tensors.without("classifier")  # of other classes
    # Number of rows, and which of the old ones they are.
    positions = np.arange(config.max_positions) % old.max_positions
    places = np.minimum(np.arange(config.boundary_positions), old.boundary_positions - 1)
    changes = {_POSITIONS: (len(positions), lambda rows: rows[positions]),
               _PLACES: (len(places), lambda rows: rows[places])}
    if config.max_positions != old.max_positions:
        logger.warning("positions: %d in %s, %d here%s", old.max_positions, pretrained.path, config.max_positions,
                       "; further ones repeat the old" * (config.max_positions > old.max_positions))
    if plan := _plan_vocabulary(pretrained, tokenizer):
        for name in _BY_PIECE:
            changes[name] = config.vocab_size, lambda rows: plan.apply(rows, config.initializer_range, seed)
    return weights.load(model, _Adapted(tensors, changes), seed)


def _plan_vocabulary(pretrained: Pretrained, tokenizer: Tokenizer) -> Transplant | None:
    """How the rows of a vocabulary become those of another; None where it is the same."""
    old, why_none = find_tokenizer(pretrained)
    if old is None:
        if pretrained.config.vocab_size != tokenizer.get_vocab_size():
            raise UserError(f"{why_none}: without it nobody knows what its {pretrained.config.vocab_size:,} pieces "
                            f"are, and the corpus has {tokenizer.get_vocab_size():,}")
        logger.warning("%s has no tokenizer: its %s pieces are taken to be those of the corpus", pretrained.path,
                       f"{pretrained.config.vocab_size:,}")
        return None
    if old.get_vocab(with_added_tokens=True) == tokenizer.get_vocab(with_added_tokens=True):
        return None
    plan = transplant(old, tokenizer)
    logger.warning("vocabulary: %s pieces kept, %s new ones from the mean of their old pieces, %s drawn at random",
                   f"{plan.kept:,}", f"{plan.composed:,}", f"{plan.drawn:,}")
    return plan
