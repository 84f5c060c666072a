"""Training: configs, mesh and sharding, state, step, loop, evaluation and checkpoints."""
from spanbert_jax.training.config import default_config, parse_argument
from spanbert_jax.training.run import RunResult, train
from spanbert_jax.training.run_evaluation import evaluate

__all__ = ["RunResult", "default_config", "evaluate", "parse_argument", "train"]
