"""Runs that start from existing weights: `config.init_from`."""
import pathlib
from collections.abc import Sequence
from typing import Any, TypeVar

from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.continuation import initial_params as adapted_params
from spanbert_jax.interop.pretrained import open_pretrained
from spanbert_jax.model import EncoderModel
from spanbert_jax.training.config import SHAPE, ModelSettings, RunConfig, started_values

# Architecture fields that the weights decide. Pretraining may change the number of positions, fine-tuning may not.
_DECIDED = (*SHAPE, "token_types", "layer_norm_epsilon", "boundary_features")
DECIDED_WITH_POSITIONS = (*_DECIDED, "max_positions")

C = TypeVar("C", bound=RunConfig)


def with_architecture(config: C, workdir: pathlib.Path, decided: Sequence[str] = _DECIDED) -> C:
    """The config with the architecture of `config.init_from`; unchanged without that.

    A run that has begun takes it from its own workdir, since its initial weights may be gone. `decided` are the fields
    of `config.model` that the weights decide.

    Raises:
      UserError: there are no such weights, or the config asks for another architecture.
    """
    if not config.init_from:
        return config
    given = config.model
    stored = started_values(workdir)
    if stored.get("init_from") == config.init_from:
        model = given.replace(**{name: stored["model"][name] for name in (*decided, "clamp_attention")})
    else:
        model = _architecture(config.init_from, given, decided)
    for name in decided:
        asked, found = getattr(given, name), getattr(model, name)
        if asked not in (getattr(ModelSettings(), name), found):
            raise UserError(f"config.model.{name}={asked}: it is {found} in {config.init_from}, from which this run "
                            "begins; leave it out")
    return config.replace(model=model)


def _architecture(init_from: str, given: ModelSettings, decided: Sequence[str]) -> ModelSettings:
    try:
        pretrained = open_pretrained(init_from)
    except UserError as error:
        raise UserError(f"config.init_from, with which this run has to begin: {error}") from None
    found, heads = pretrained.config, pretrained.stored.pretraining
    fields = {name: getattr(found, name) for name in decided if name != "boundary_features"}
    if heads.boundary:
        fields["boundary_features"] = heads.boundary_features
    return given.replace(**fields, clamp_attention=given.clamp_attention or getattr(found, "clamp_attention", False))


def initial_params(config: RunConfig, model: EncoderModel, tokenizer: Tokenizer) -> dict[str, Any]:
    """Initial parameters of a run in float32 on the host; parameters that the weights lack are logged."""
    return adapted_params(open_pretrained(config.init_from), model, tokenizer, config.seed)
