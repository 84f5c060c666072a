"""Which named size to train with what one has: arithmetic alone, nothing is compiled."""
from __future__ import annotations

import dataclasses
import re

from spanbert_jax.common.errors import UserError
from spanbert_jax.model import ModelConfig, train_step_flops
from spanbert_jax.model.config import SIZES
from spanbert_jax.planning.hardware import CHIPS

LENGTH, VOCAB_SIZE = 512, 28_996
# 15% of a row's tokens without [CLS] and [SEP].
MASKED = 77
# Share of a chip's peak that a step is taken to reach, communication included: the lower of the two estimates of `plan`
# for base and large on whole slices, rounded down. The rates on v4 and H100 are assumptions.
UTILIZATION = {"v4": 0.40, "v5e": 0.52, "v5p": 0.48, "v6e": 0.23, "h100": 0.35}
# Narrower networks than base are taken to reach as much less as they are narrower: their products are too small.
_FULL_WIDTH = 768
# AdamW in float32: parameter, two means and a gradient.
_STATE_BYTES = 16

_EXAMPLE = "'32 v5e chips, 3 days, 20B tokens'"
_SECONDS = {"hour": 3600.0, "day": 86400.0, "week": 7 * 86400.0, "minute": 60.0}
_AMOUNTS = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "": 1.0}


@dataclasses.dataclass(frozen=True)
class Budget:
    """What one has.

    Attributes:
      kind: of chips, a key of `CHIPS`.
      seconds: that the chips are there; 0 for no limit.
      tokens: to train on; 0 for as many as the time allows.
    """
    chips: int
    kind: str
    seconds: float
    tokens: float


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a named size would reach.

    Attributes:
      tokens_per_second: on all chips.
      fits: whether its state fits whole on a chip, activations aside.
      tokens: in the time; None without a limit of time.
      seconds: for the tokens; None without a number of tokens.
    """
    size: str
    parameters: int
    tokens_per_second: float
    fits: bool
    tokens: float | None
    seconds: float | None


def parse_budget(text: str) -> Budget:
    """Reads "32 v5e chips, 3 days, 20B tokens"; time or tokens may be left out.

    Raises:
      UserError: it cannot be read.
    """
    chips = seconds = tokens = kind = None
    for part in filter(None, (part.strip() for part in text.split(","))):
        if match := re.fullmatch(r"(\d+)\s+(\w+?)(?:\s+chips?|\s+GPUs?)?", part, re.IGNORECASE):
            if match[2].lower() in UTILIZATION:
                chips, kind = int(match[1]), match[2].lower()
                continue
        if match := re.fullmatch(r"([\d.]+)\s*(minute|hour|day|week)s?", part):
            seconds = _number(text, match[1]) * _SECONDS[match[2]]
        elif match := re.fullmatch(r"([\d.]+)\s*([kMBT]?)\s*tokens?", part):
            tokens = _number(text, match[1]) * _AMOUNTS[match[2]]
        else:
            raise UserError(f"--budget {text!r}: {part!r} is no number of chips ({', '.join(UTILIZATION)}), no time "
                            f"and no number of tokens; write it as {_EXAMPLE}")
    if not chips or not (seconds or tokens):
        raise UserError(f"--budget {text!r}: say how many chips, and a time or a number of tokens or both, as in "
                        f"{_EXAMPLE}")
    return Budget(chips, kind, seconds or 0.0, tokens or 0.0)


def _number(text: str, digits: str) -> float:
    try:
        return float(digits)
    except ValueError:
        raise UserError(f"--budget {text!r}: {digits!r} is no number") from None


def choices(budget: Budget) -> list[Choice]:
    """What each named size would reach, the smallest first."""
    chip, found = CHIPS[budget.kind], []
    for size in SIZES:
        network = ModelConfig.named(size, vocab_size=VOCAB_SIZE)
        rate = UTILIZATION[budget.kind] * min(1.0, network.width / _FULL_WIDTH)
        speed = LENGTH * budget.chips * chip.flops * rate / train_step_flops(network, 1, LENGTH, MASKED)
        parameters = count_parameters(network)
        found.append(Choice(
            size, parameters, speed, _STATE_BYTES * parameters < chip.memory,
            speed * budget.seconds if budget.seconds else None, budget.tokens / speed if budget.tokens else None))
    return found


def best(budget: Budget, found: list[Choice]) -> Choice | None:
    """The largest size that fits and sees its tokens in the time; without a number of tokens, twenty a parameter."""
    able = [choice for choice in found if choice.fits and (
        not budget.seconds or choice.tokens >= (budget.tokens or 20 * choice.parameters))]
    return max(able, key=lambda choice: choice.parameters, default=None)


def count_parameters(network: ModelConfig) -> int:
    """Parameters of a network with both heads, by its shape."""
    width, inner = network.width, network.feed_forward
    layer = 4 * (width * width + width) + 2 * width * inner + inner + width + 4 * width
    tables = (network.vocab_size + network.max_positions + network.token_types) * width + 2 * width
    masked_head = width * width + 3 * width + network.vocab_size
    first = (2 * width + network.boundary_features) * width
    boundary_head = (first + width * width + 6 * width + network.boundary_positions * network.boundary_features
                     + network.vocab_size)
    return network.num_layers * layer + tables + masked_head + boundary_head
