"""Sentiment."""
import os
import pathlib

import ml_collections

from spanbert_jax.finetuning.config import default_task_config


def get_config() -> ml_collections.ConfigDict:
    """Sentiment of film reviews."""
    data = pathlib.Path(os.environ.get("SPANBERT_DATA", "../shared/data"))
    config = default_task_config("text_classification", train=str(data / "reviews-rotten_tomatoes.jsonl.gz"),
                                 dev_fraction=0.1, test_fraction=0.1, length=128)
    config.model.dtype = "float32"
    return config
