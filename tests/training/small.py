"""A small model and small random rows for tests of the train step."""
import jax
import numpy as np
import optax

from spanbert_jax.masking import make_masker
from spanbert_jax.model import SpanBert
from spanbert_jax.pretraining.config import as_pretraining_config, default_config, pretraining_heads
from spanbert_jax.pretraining.objective import pretraining_objective
from spanbert_jax.text import SpecialIds
from spanbert_jax.training.batch_warmup import FULL_BATCH, BatchWarmup
from spanbert_jax.training.batches import global_array
from spanbert_jax.training.mesh import batch_sharding, make_mesh, stop_flags
from spanbert_jax.training.optimizers import make_optimizer
from spanbert_jax.training.state import abstract_train_state, create_state
from spanbert_jax.training.step import make_train_step

VOCABULARY, LENGTH, ROWS = 300, 48, 16


def small_config(dropout: float = 0.1):
    """The config of a small run; without dropout it compiles in half the time."""
    config = default_config()
    config.model.dropout = config.model.attention_dropout = dropout
    config.model.size, config.compute.dtype, config.model.max_positions = "tiny", "float32", LENGTH
    config.model.width, config.model.num_heads, config.model.feed_forward = 64, 2, 128
    config.compute.layers = "scanned"  # compiles faster
    config.train.batch_size = ROWS
    config.optimizer.learning_rate = 1e-3
    return config


def make_rows(seed: int, rows: int = ROWS, next_sentence: bool = False) -> dict[str, np.ndarray]:
    """Random rows of different lengths, some with two segments."""
    random = np.random.default_rng(seed)
    tokens = np.zeros((rows, LENGTH), np.int32)
    segments = np.zeros((rows, LENGTH), np.uint8)
    for row in range(rows):
        end = 0
        for segment, size in enumerate(random.integers(5, LENGTH // 2, random.integers(1, 3)), 1):
            tokens[row, end:end + size] = random.integers(10, VOCABULARY, size)
            tokens[row, end], tokens[row, end + size - 1] = 2, 3
            segments[row, end:end + size] = segment
            end += size
    label = random.integers(0, 2, rows) if next_sentence else -np.ones(rows)
    return {"tokens": tokens, "segments": segments, "next_sentence": label.astype(np.int32),
            "word_starts": (random.random(tokens.shape) < 0.8).astype(np.uint8),
            "token_types": np.zeros_like(segments), "annotations": np.zeros_like(segments)}


class Trainer:
    """Trains a small model on random rows, on some of the devices."""

    def __init__(self, config, devices: int = 1, schedule: optax.Schedule | None = None,
                 warmup: BatchWarmup = FULL_BATCH):
        self.config = config = as_pretraining_config(config)
        self.mesh = make_mesh(config.mesh, jax.devices()[:devices])
        self.model = SpanBert(config.model.config(VOCABULARY), pretraining_heads(config), config.compute)
        self.masker = make_masker(config.masking, length=LENGTH, max_blocks=2,
                                  special=SpecialIds(0, 1, 2, 3, 4), unigram=np.ones(VOCABULARY, np.int64))
        schedule = schedule or optax.constant_schedule(config.optimizer.learning_rate)
        self.optimizer = make_optimizer(config.optimizer, schedule)
        self.abstract_state = abstract_train_state(self.model, self.optimizer, self.mesh, config.mesh.rules,
                                                   config.mesh.zero1)
        self.objective = pretraining_objective(self.model, self.masker, config.objectives, self.mesh, config.mesh.rules)
        self.step = make_train_step(config, self.objective, self.optimizer, schedule, self.abstract_state, self.mesh,
                                    warmup)

    def fresh(self):
        """The state before the first update."""
        with jax.set_mesh(self.mesh):
            return create_state(self.model, self.optimizer, self.abstract_state, self.config.seed)

    def run(self, state, steps: range, change=lambda name, values: values, **rows):
        """The state after some steps, and the metrics of each step; `change` may change the rows of a feature."""
        metrics, sharding = [], batch_sharding(self.mesh, self.config.mesh.rules)
        with jax.set_mesh(self.mesh):
            for step in steps:
                batch = {name: global_array(sharding, change(name, values), np.arange(len(values)), len(values))
                         for name, values in make_rows(step, **rows).items()}
                state, values, self.row_losses = self.step(state, batch, stop_flags(self.mesh, False))
                metrics.append({name: float(value) for name, value in values.items()})
        return state, metrics


def losses(metrics) -> np.ndarray:
    """The losses of some steps."""
    return np.array([values["loss"] for values in metrics])
