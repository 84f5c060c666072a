"""Which named size to train with a given number of chips, time and tokens: arithmetic, without compiling anything."""
import dataclasses
import functools
import re
from collections.abc import Sequence

import jax
from flax import linen as nn

from spanbert_jax.common.errors import UserError
from spanbert_jax.model import BertConfig, ComputeConfig, PretrainingHeads, SpanBert, train_step_flops
from spanbert_jax.planning.hardware import CHIPS, Topology
from spanbert_jax.planning.machine import measure_flops
from spanbert_jax.training.experiment import parameter_count
from spanbert_jax.training.state import init_params

# Tokens in a row, S, and masked tokens: 15% of S without [CLS] and [SEP].
LENGTH, MASKED = 512, 77
VOCAB_SIZE = 28_996
# Assumed MFU with communication: the lower estimate of `plan` for base and large on whole slices, rounded down. The
# values of v4, GPUs and CPUs are guesses. The peak of a CPU is what this machine reaches in a matrix product.
UTILIZATION = {"v4": 0.40, "v5e": 0.52, "v5p": 0.48, "v6e": 0.23, "a100": 0.40, "h100": 0.35, "h200": 0.35,
               "b200": 0.30, "cpu": 0.50}
# Below this width, MFU is assumed to be proportional to the width, except on CPUs: the matrix products are too small
# for the chip.
_FULL_WIDTH = 768
# AdamW in float32: parameter, two moments and gradient.
_STATE_BYTES_PER_PARAMETER = 16
# Without a number of tokens in the budget, a model is trained on so many per parameter.
_TOKENS_PER_PARAMETER = 20

_EXAMPLE = "'32 v5e chips, 3 days, 20B tokens'"
_SECONDS = {"minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 7 * 86400.0}
_AMOUNTS = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "": 1.0}


@dataclasses.dataclass(frozen=True)
class Budget:
    """Available resources."""
    chips: int  # number of chips
    kind: str  # of the chips, a key of `CHIPS`
    seconds: float  # for which the chips are available; 0 for no limit
    tokens: float  # to train on; 0 for as many as the time allows


@dataclasses.dataclass(frozen=True)
class SizeEstimate:
    """What a named size reaches with a budget."""
    size: str  # its name
    parameters: int  # number of parameters, heads included
    tokens_per_second: float  # on all chips
    fits: bool  # whether parameters and optimizer state fit unsharded on one chip, activations aside
    tokens: float | None  # trained on in the time; None if the time is not limited
    seconds: float | None  # for the tokens; None if the budget has no number of tokens


def parse_budget(text: str) -> Budget:
    """The budget of a text such as "32 v5e chips, 3 days, 20B tokens"; either time or tokens may be missing.

    Raises:
      UserError: a part of the text is not understood, or missing.
    """
    kind, found = "", dict[str, float]()  # values of the parts by what they are
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(\d+)\s+(\w+?)(?:\s+chips?|\s+GPUs?)?", part, re.IGNORECASE)
        if match and match[2].lower() in UTILIZATION:
            name, value, kind = "number of chips", float(match[1]), match[2].lower()
        elif match := re.fullmatch(r"([\d.]+)\s*(minute|hour|day|week)s?", part):
            name, value = "time", _number(text, match[1]) * _SECONDS[match[2]]
        elif match := re.fullmatch(r"([\d.]+)\s*([kMBT]?)\s*tokens?", part):
            name, value = "number of tokens", _number(text, match[1]) * _AMOUNTS[match[2]]
        else:
            raise UserError(f"--budget {text!r}: {part!r} is neither a number of chips ({', '.join(UTILIZATION)}) nor "
                            f"a time nor a number of tokens; write it as {_EXAMPLE}")
        if name in found or not value:
            problem = f"is a second {name}" if name in found else f"the {name} must be above 0"
            raise UserError(f"--budget {text!r}: {part!r}: {problem}; write it as {_EXAMPLE}")
        found[name] = value
    chips, seconds, tokens = (found.get(name, 0.0) for name in ("number of chips", "time", "number of tokens"))
    if not chips or not (seconds or tokens):
        raise UserError(f"--budget {text!r}: give a number of chips, and a time or a number of tokens or both, as in "
                        f"{_EXAMPLE}")
    return Budget(int(chips), kind, seconds, tokens)


def _number(text: str, digits: str) -> float:
    try:
        return float(digits)
    except ValueError:
        raise UserError(f"--budget {text!r}: {digits!r} is not a number") from None


def estimate_sizes(budget: Budget) -> list[SizeEstimate]:
    """What each named size reaches with a budget, the smallest size first."""
    chip, memory, estimates = CHIPS[budget.kind], Topology(budget.kind, (1,)).memory, []
    flops = chip.flops or measure_flops()
    for size in BertConfig.sizes:
        model = BertConfig.named(size, vocab_size=VOCAB_SIZE)
        utilization = UTILIZATION[budget.kind] * (min(1.0, model.width / _FULL_WIDTH) if chip.flops else 1.0)
        speed = LENGTH * budget.chips * flops * utilization / train_step_flops(
            model, 1, LENGTH, MASKED, PretrainingHeads())
        parameters = _count_parameters(model)
        estimates.append(SizeEstimate(
            size, parameters, speed, _STATE_BYTES_PER_PARAMETER * parameters < memory,
            speed * budget.seconds if budget.seconds else None, budget.tokens / speed if budget.tokens else None))
    return estimates


def largest_feasible(budget: Budget, estimates: Sequence[SizeEstimate]) -> SizeEstimate | None:
    """The largest size that fits and trains on enough tokens in the time; None if no size does."""
    feasible = [estimate for estimate in estimates if estimate.fits and (
        estimate.tokens is None or estimate.tokens >= (budget.tokens or _TOKENS_PER_PARAMETER * estimate.parameters))]
    return max(feasible, key=lambda estimate: estimate.parameters, default=None)


@functools.cache
def _count_parameters(config: BertConfig) -> int:
    model = SpanBert(config, compute=ComputeConfig(layers="scanned"))
    params = nn.unbox(jax.eval_shape(lambda: init_params(model, jax.random.key(0))))
    return parameter_count(params, config)
