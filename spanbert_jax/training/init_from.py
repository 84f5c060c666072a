"""Runs that start from existing weights: `config.init_from`."""
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.settings import from_dict, to_dict
from spanbert_jax.interop.continuation import initial_params as adapted_params
from spanbert_jax.interop.pretrained import open_pretrained
from spanbert_jax.model import EncoderModel
from spanbert_jax.training.config import SHAPE, ModelSettings, RunConfig, model_section, own_fields, started_values

# Common fields that the weights decide. Pretraining may change the number of positions, fine-tuning may not.
_DECIDED = (*SHAPE, "layer_norm_epsilon", "boundary_features")
DECIDED_WITH_POSITIONS = (*_DECIDED, "max_positions")

C = TypeVar("C", bound=RunConfig)


def with_architecture(config: C, workdir: pathlib.Path, decided: Sequence[str] = _DECIDED) -> C:
    """The config with the architecture of `config.init_from`; unchanged without that.

    A run that has begun takes it from its own workdir, since its initial weights may be gone. `decided` are the fields
    of `config.model` that the weights decide, besides the architecture and its own fields. Those of its own fields that
    may be changed keep a value that differs from the default.

    Raises:
      UserError: there are no such weights, or the config asks for another architecture.
    """
    if not config.init_from:
        return config
    given: Any = config.model
    stored = started_values(workdir)
    if stored.get("init_from") == config.init_from:
        found = to_dict(from_dict(ModelSettings, stored["model"], "config.model"))
    else:
        found = _stored_architecture(config.init_from)
    _refuse_other("architecture", given.architecture, ModelSettings.architecture, found, config.init_from)
    usual = model_section(given.architecture)()
    section: Any = from_dict(ModelSettings, to_dict(given) | {"architecture": found["architecture"]}, "config.model")
    fields = {}
    for field in dataclasses.fields(section):
        name = field.name
        asked, default = (getattr(settings, name, found.get(name)) for settings in (given, usual))
        if field in own_fields(section) and field.metadata["overridable"]:
            fields[name] = found[name] if asked == default else asked
        elif field in own_fields(section) or name in decided:
            _refuse_other(name, asked, default, found, config.init_from)
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
    features = heads.boundary_features if heads.boundary else model_section(found.architecture)().boundary_features
    return {"architecture": found.architecture, **dataclasses.asdict(found), "boundary_features": features}


def initial_params(config: RunConfig, model: EncoderModel, tokenizer: Tokenizer) -> dict[str, Any]:
    """Initial parameters of a run in float32 on the host; parameters that the weights lack are logged."""
    return adapted_params(open_pretrained(config.init_from), model, tokenizer, config.seed)
