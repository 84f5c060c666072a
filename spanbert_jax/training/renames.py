"""Fields of configs that have been renamed. Their old names are still read, with a warning that names the new one."""
from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

# Old name -> new name. A section's name ends in a dot in neither.
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
logger = logging.getLogger("spanbert_jax")


def new_name(field: str, warn: bool = True) -> str:
    """The name of a field today, which may be given by its old name."""
    if field not in RENAMED:
        return field
    if warn:
        logger.warning("config.%s is now config.%s; please use the new name", field, RENAMED[field])
    return RENAMED[field]


def rename_fields(values: Mapping[str, Any], warn: bool = True) -> dict[str, Any]:
    """Nested dictionaries of a config, with every renamed field moved to its new place.

    Args:
      values: by section; other sections and fields stay as they are.
      warn: log a line for each renamed field.
    """
    renamed = {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    for old in RENAMED:
        section, field = old.split(".")
        if isinstance(renamed.get(section), dict) and field in renamed[section]:
            new_section, new_field = new_name(old, warn).split(".")
            renamed.setdefault(new_section, {})[new_field] = renamed[section].pop(field)
    return renamed
