"""Fields of configs that have been renamed, and old values that mean "not set", which is None today.

Old names are still read, with a warning that names the new one.
"""
import logging
from collections.abc import Mapping
from typing import Any

# Old name -> new name, both as SECTION.FIELD.
RENAMED = {
    "model.dtype": "compute.dtype",
    "model.attention": "compute.attention",
    "model.layers": "compute.layers",
    "model.remat": "compute.remat",
    "train.gradient_dtype": "compute.gradient_dtype",
    "optimizer.schedule": "schedule.name",
    "optimizer.warmup": "schedule.warmup",
    "optimizer.decay": "schedule.decay",
    "optimizer.final_fraction": "schedule.final_fraction",
}
UNSET = {"model.global_rotary_base": 0, "model.local_rotary_base": 0, "model.pooling": ""}
_warned: set[str] = set()
logger = logging.getLogger("spanbert_jax")


def new_name(field: str, warn: bool = True) -> str:
    """Today's name of a field; an old name is logged once per process if `warn`."""
    if field not in RENAMED:
        return field
    if warn and field not in _warned:
        _warned.add(field)
        logger.warning("config.%s is now config.%s; please use the new name", field, RENAMED[field])
    return RENAMED[field]


def rename_fields(values: Mapping[str, Any], defaults: Mapping[str, Any] | None = None,
                  warn: bool = True) -> dict[str, Any]:
    """Nested dictionaries of a config, with every renamed field moved to its new place, and None for `UNSET`.

    Where both names of a field are set, the new one counts.

    Args:
      values: the config.
      defaults: those of all fields, if `values` has fields that are not set: the new name is set if its value differs.
      warn: as for `new_name`.
    """
    renamed = {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    for old in RENAMED:
        section, field = old.split(".")
        if isinstance(renamed.get(section), dict) and field in renamed[section]:
            new_section, new_field = new_name(old, warn).split(".")
            place = renamed.setdefault(new_section, {})
            if isinstance(place, dict):
                value = renamed[section].pop(field)
                if new_field not in place or (defaults and place[new_field] == defaults[new_section][new_field]):
                    place[new_field] = value
    for field, unset in UNSET.items():
        section, name = field.split(".")
        if isinstance(place := renamed.get(section), dict) and place.get(name) == unset:
            place[name] = None
    return renamed
