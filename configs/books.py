"""A small SpanBERT pretrained on novels and speeches with the cased BERT vocabulary, on a laptop.

  SPANBERT_DATA=../shared/data spanbert-jax train --config configs/books.py --workdir runs/books

Reads $SPANBERT_DATA/litbank/original (84 novels), $SPANBERT_DATA/sotu (216 State of the Union addresses) and
$SPANBERT_DATA/vocab/bert-base-cased-vocab.txt. For another corpus, set --config.data.sources="('texts/*.txt',)", and
--config.data.tokenizer=PATH or --config.data.vocab_size=8000.
"""
import os
import pathlib

import ml_collections

from spanbert_jax import default_config


def get_config() -> ml_collections.ConfigDict:
    """Pretraining on books."""
    data = pathlib.Path(os.environ.get("SPANBERT_DATA", "../shared/data"))
    config = default_config()
    config.data.sources = (str(data / "litbank" / "original" / "*.txt"), str(data / "sotu" / "*.txt"))
    config.data.tokenizer = str(data / "vocab" / "bert-base-cased-vocab.txt")
    config.data.length = 128
    config.data.blocks = "contiguous"
    config.data.validation_fraction = 0.02

    config.model.size = "mini"
    config.model.max_positions = 128
    config.compute.dtype = "float32"  # faster than bfloat16 on CPUs

    config.optimizer.learning_rate = 1e-3
    config.schedule.warmup = "5 percent"

    config.train.duration = "1 epoch"
    config.train.batch_size = 64
    config.train.log_every = 20
    config.evaluation.every = "500 steps"
    config.evaluation.batch_size = 64
    config.evaluation.max_rows = 1024
    config.evaluation.example = True
    config.checkpoint.every = "250 steps"
    config.checkpoint.keep_every = "0"
    return config
