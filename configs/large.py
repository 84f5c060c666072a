"""SpanBERT-large with the published hyperparameters; variants and notes are those of base.py.

  spanbert-jax train --config configs/large.py --config.data.path=corpora/mine --workdir runs/large

Time: the authors' run took 15 days on 32 V100 (section 4.2).
"""
import pathlib
import runpy

import ml_collections

_BASE = runpy.run_path(str(pathlib.Path(__file__).with_name("base.py")))  # config files are in no package


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """SpanBERT-large; `argument` selects a variant, as in base.py."""
    config = _BASE["get_config"](argument)
    config.model.size = "large"
    config.optimizer.learning_rate = 1e-4
    config.train.duration = "2.4M steps"
    config.train.batch_size = 256
    return config
