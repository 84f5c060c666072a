"""A small SpanBERT pretrained on the English prose of the Python installation, on two CPU cores. Needs no data.

  spanbert-jax train --config configs/quickstart.py --workdir runs/quickstart

It takes four to five minutes on two cores, including preparation and compilation. Expect a held-out masked-token loss
of about 6.13 nats, which is 0.46 below predicting by token frequency; the last lines of the output show both.
"""
import ml_collections

from spanbert_jax import default_config


def get_config() -> ml_collections.ConfigDict:
    """The quickstart experiment."""
    config = default_config()
    config.data.sources = ("python",)
    config.data.vocab_size = 4096
    config.data.length = 128
    config.data.validation_fraction = 0.05

    config.model.size = "tiny"
    config.model.max_positions = 128
    config.compute.dtype = "float32"  # faster than bfloat16 on CPUs
    config.model.dropout = config.model.attention_dropout = 0.0  # the run is too short to overfit

    config.optimizer.learning_rate = 2e-3
    config.schedule.warmup = "10 percent"

    config.train.duration = "600 steps"
    config.train.batch_size = 64
    config.train.log_every = 25
    config.evaluation.every = "200 steps"
    config.evaluation.batch_size = 64
    config.evaluation.max_rows = 512
    config.evaluation.example = True
    config.checkpoint.every = "100 steps"
    config.checkpoint.keep_every = "0"
    return config
