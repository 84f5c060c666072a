"""SpanBERT-large with the published hyperparameters; variants and notes are those of base.py.

  spanbert-jax train --config configs/large.py --config.data.path=corpora/mine --workdir runs/large

Time: the authors' run took 15 days on 32 V100 (section 4.2).
"""
import importlib.util
import pathlib
from typing import Any

import ml_collections

# Config files are loaded by path, so base.py is too.
_SPEC: Any = importlib.util.spec_from_file_location("base", pathlib.Path(__file__).with_name("base.py"))
base = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(base)


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """SpanBERT-large; `argument` selects a variant, as in base.py."""
    config = base.get_config(argument)
    config.model.size = "large"
    config.optimizer.learning_rate = 1e-4
    config.train.duration = "2.4M steps"
    config.train.batch_size = 256
    return config
