"""Model FLOPs: the arithmetic that the network needs, whatever the compiler does."""
from __future__ import annotations

from spanbert_jax.model.config import DecoderConfig, ModelConfig


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


def decoder_step_flops(config: DecoderConfig, rows: int, length: int, memory_length: int) -> float:
    """The same of a decoder with its output at every position.

    Args:
      length: positions in a row of the target, T.
      memory_length: positions in a row of the encoder, S.
    """
    width = config.width
    own = length * 4 * width * width + 2 * length * length * width
    other = 2 * (length + memory_length) * width * width + 2 * length * memory_length * width
    head = length * width * (config.padded_vocab_size + (0 if config.norm_first else width))
    layer = own + other + length * 2 * width * config.feed_forward
    return 3 * 2.0 * rows * (config.num_layers * layer + head)
