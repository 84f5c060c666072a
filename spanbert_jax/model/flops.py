"""Model FLOPs: the arithmetic that the network needs, whatever the compiler does."""
from __future__ import annotations

from spanbert_jax.model.config import ModelConfig


def train_step_flops(config: ModelConfig, rows: int, length: int, masked: int) -> float:
    """Floating-point operations of the matrix products of one training step.

    A product of [a, b] and [b, c] counts 2abc; the backward pass counts twice the forward pass. Recomputation,
    embedding look-ups and elementwise work count nothing, as is the custom for model FLOP/s.

    Args:
      rows: rows in the global batch, B.
      length: tokens in a row, S.
      masked: positions a row at which the heads run, M.
    """
    width, vocabulary = config.width, config.padded_vocab_size
    layer = length * (4 * width * width + 2 * width * config.feed_forward) + 2 * length * length * width
    head = masked * (width * width + width * vocabulary)
    if config.boundary_head:
        first = (2 * width + config.boundary_features) * width
        head += masked * (first + width * width + width * vocabulary)
    if config.next_sentence_head:
        head += width * width + 2 * width
    return 3 * 2.0 * rows * (config.num_layers * layer + head)
