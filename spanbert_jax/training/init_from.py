"""Runs that start from existing weights: `config.init_from`."""
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, TypeVar

from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.settings import from_dict, to_dict
from spanbert_jax.interop.continuation import initial_params as adapted_params
from spanbert_jax.interop.pretrained import open_pretrained
from spanbert_jax.model import EncoderModel
from spanbert_jax.training.config import SHAPE, ModelSettings, RunConfig, own_fields, started_values, without_none

_DECIDED = (*SHAPE, "layer_norm_epsilon", "boundary_features")  # common fields that the weights decide

C = TypeVar("C", bound=RunConfig)


def with_architecture(config: C, workdir: pathlib.Path, keep_positions: bool = False) -> C:
    """The config with the architecture of `config.init_from`; unchanged without that.

    A run that has begun takes it from its own workdir, since its initial weights may be gone. Fields that are not set
    get the values of the weights; a value that is set counts where it may be changed, and is refused elsewhere. Dropout
    rates are a choice of each run, whatever the weights were trained with.

    Args:
      keep_positions: whether fewer positions than those of the weights are refused.

    Raises:
      UserError: there are no such weights, or the config asks for another architecture.
    """
    if not config.init_from:
        return config
    given: Any = config.model
    stored = started_values(workdir)
    begun = stored.get("init_from") == config.init_from
    if begun:
        found = without_none(to_dict(from_dict(ModelSettings, stored.get("model", {}), "config.model")))
    else:
        found = _stored_architecture(config.init_from)
    _refuse_other("architecture", given.architecture, ModelSettings.architecture, found, config.init_from)
    section: Any = from_dict(ModelSettings, to_dict(given) | {"architecture": found["architecture"]}, "config.model")
    fields = {}
    for field in dataclasses.fields(section):
        name, own = field.name, field in own_fields(section)
        asked = getattr(given, name, None)
        of_run = name.endswith("dropout")
        if name == "max_positions" or (own and field.metadata["overridable"]) or (begun and of_run):
            fields[name] = found[name] if asked is None else asked
            if name == "max_positions" and keep_positions and fields[name] < found[name]:
                _refuse_other(name, asked, None, found, config.init_from)
        elif name in found and (name in _DECIDED or (own and not of_run)):
            _refuse_other(name, asked, field.default, found, config.init_from)
            fields[name] = found[name]
    return config.replace(model=section.replace(**fields))


def _refuse_other(name: str, asked: Any, default: Any, found: Mapping[str, Any], init_from: str) -> None:
    """Raises UserError if a config asks for another value than weights have."""
    if asked not in (default, found[name]):
        raise UserError(f"config.model.{name}={asked}: it is {found[name]} in {init_from}, from which this run begins; "
                        "leave it out")


def _stored_architecture(init_from: str) -> dict[str, Any]:
    """The values of a section `model` that weights decide."""
    try:
        pretrained = open_pretrained(init_from)
    except UserError as error:
        raise UserError(f"config.init_from, with which this run has to begin: {error}") from None
    found, heads = pretrained.config, pretrained.stored.pretraining
    features = {"boundary_features": heads.boundary_features} if heads.boundary else {}
    return {"architecture": found.architecture, **dataclasses.asdict(found), **features}


def initial_params(config: RunConfig, model: EncoderModel, tokenizer: Tokenizer) -> dict[str, Any]:
    """Initial parameters of a run in float32 on the host; parameters that the weights lack are logged."""
    return adapted_params(open_pretrained(config.init_from), model, tokenizer, config.seed)
