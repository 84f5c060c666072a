"""Runs that begin from weights that exist: `config.init_from`."""
from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.continuation import initial_params as adapted_params
from spanbert_jax.interop.pretrained import open_pretrained
from spanbert_jax.model import EncoderModel
from spanbert_jax.training.config import SHAPE, shared_defaults
from spanbert_jax.training.stored_config import CONFIG_FILE, load_config

# What the weights decide; a run may have other positions, but for one that has no use for more.
_TAKEN = (*SHAPE, "token_types", "layer_norm_epsilon", "boundary_features")
TAKEN_WITH_POSITIONS = (*_TAKEN, "max_positions")


def with_network(config: ml_collections.ConfigDict, workdir: pathlib.Path,
                 taken: Sequence[str] = _TAKEN) -> ml_collections.ConfigDict:
    """A config whose `model` says what the network of `config.init_from` is; without that, the config as it is.

    A run that has begun remembers it: what it began from need not be there any more.

    Args:
      taken: the fields that the weights decide.

    Raises:
      UserError: when there are no such weights, or the config asks for a network of another shape.
    """
    if not config.init_from:
        return config
    given, config = config.model, config.copy_and_resolve_references()
    if (workdir / CONFIG_FILE).exists() and (stored := load_config(workdir)).init_from == config.init_from:
        config.model.update({name: stored.model[name] for name in (*taken, "clamp_attention")})
    else:
        try:
            network = open_pretrained(config.init_from).config
        except UserError as error:
            raise UserError(f"config.init_from, with which this run has to begin: {error}") from None
        config.model.update({name: getattr(network, name) for name in taken})
        if not network.boundary_head:
            config.model.boundary_features = given.boundary_features
        config.model.clamp_attention = given.clamp_attention or network.clamp_attention
    defaults = shared_defaults().model
    for name in taken:
        if given[name] not in (defaults[name], config.model[name]):
            raise UserError(f"config.model.{name}={given[name]}: it is {config.model[name]} in {config.init_from}, "
                            "from which this run begins; leave it out")
    return config


def initial_params(config: ml_collections.ConfigDict, model: EncoderModel, tokenizer: Tokenizer) -> dict[str, Any]:
    """The parameters that a run begins with, in float32 on the host; what had to be made anew is logged."""
    return adapted_params(open_pretrained(config.init_from), model, tokenizer, config.seed)
