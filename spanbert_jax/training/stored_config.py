"""The config that lies in a workdir: that of the newest call of its run."""
from __future__ import annotations

import json
import os
import pathlib

import ml_collections

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import write_text
from spanbert_jax.training.config import shared_defaults

CONFIG_FILE = "config.json"


def load_config(workdir: str | os.PathLike, defaults: ml_collections.ConfigDict | None = None) -> ml_collections.ConfigDict:
    """The config of the newest call of a run.

    Args:
      defaults: values of fields that a run of an older version lacks; those of every run if not given.

    Raises:
      UserError: when `workdir` holds no run.
    """
    path = pathlib.Path(workdir) / CONFIG_FILE
    if not path.exists():
        raise UserError(f"{workdir}: no run here ({CONFIG_FILE} is missing); give the workdir of a training run")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        values = (defaults or shared_defaults()).to_dict()
        for name, value in stored.items():
            values[name] = values.get(name, {}) | value if isinstance(value, dict) else value
        return ml_collections.ConfigDict(values)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: not the config of a run ({error}); start the run's own command again, which writes "
                        "it") from None


def save_config(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Writes the config of a run, so that it is never seen half-written."""
    write_text(workdir / CONFIG_FILE, config.to_json_best_effort(indent=2) + "\n")
