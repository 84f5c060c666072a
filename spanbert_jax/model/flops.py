"""Model FLOPs: the arithmetic that a model needs, whatever the compiler makes of it."""
from spanbert_jax.model.config import ModelConfig
from spanbert_jax.model.heads.pretraining import PretrainingHeads


def train_step_flops(config: ModelConfig, rows: int, length: int, masked: int = 0,
                     heads: PretrainingHeads | None = None) -> float:
    """Floating-point operations of the matrix products of one training step.

    A product of [a, b] and [b, c] counts 2abc; the backward pass counts twice the forward pass. Recomputation,
    embedding look-ups and elementwise work count nothing, as is customary for model FLOP/s.

    Args:
      rows: rows in the global batch, B.
      length: tokens in a row, S.
      masked: positions in a row at which the heads run, M.
      heads: the pretraining heads; None for the encoder alone.
    """
    head = heads.multiply_adds(config, masked) if heads else 0
    return 3 * 2.0 * rows * (config.encoder_multiply_adds(length) + head)


def decoder_step_flops(config: ModelConfig, rows: int, length: int, memory_length: int) -> float:
    """The same for a decoder with rows of T = `length` and S = `memory_length` positions, with logits at all T."""
    width = config.width
    cross_attention = 2 * (length + memory_length) * width * width + 2 * length * memory_length * width
    layer = config.layer_multiply_adds(length) + cross_attention
    head = length * width * (config.padded_vocab_size + (0 if config.norm_first else width))
    return 3 * 2.0 * rows * (config.num_layers * layer + head)
