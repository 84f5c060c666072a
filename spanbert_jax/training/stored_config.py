"""config.json in a workdir: the config of the latest call of its run."""
import json
import os
import pathlib
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import write_text
from spanbert_jax.common.registry import load_plugins
from spanbert_jax.common.settings import to_dict
from spanbert_jax.training.config import RunConfig
from spanbert_jax.training.renames import rename_fields

CONFIG_FILE = "config.json"


def load_values(workdir: str | os.PathLike) -> dict[str, Any]:
    """The config of the latest call of a run, as nested dictionaries with today's field names.

    The plugins that it names are imported. Fields that an older version did not have are missing; `from_dict` gives
    them their defaults.

    Raises:
      UserError: `workdir` holds no run, or its config cannot be read.
    """
    path = pathlib.Path(workdir) / CONFIG_FILE
    if not path.exists():
        raise UserError(f"{workdir}: no run here ({CONFIG_FILE} is missing); give the workdir of a training run")
    try:
        values = rename_fields(json.loads(path.read_text(encoding="utf-8")), warn=False)
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not the config of a run ({error}); start the run's own command again, which writes "
                        "it") from None
    load_plugins(values.get("plugins", ()))
    return values


def save_config(workdir: pathlib.Path, config: RunConfig) -> None:
    """Writes the config of a run atomically."""
    write_text(workdir / CONFIG_FILE, json.dumps(to_dict(config), indent=2) + "\n")
