"""Model, batch and length of a pretraining run that suit a corpus, this machine and the time that it may take."""
import dataclasses
import importlib.util
import math
import os
from collections.abc import Mapping

from spanbert_jax.cluster.platforms import count_device_files
from spanbert_jax.common.settings import require
from spanbert_jax.corpus import Corpus
from spanbert_jax.corpus.processes import cpu_cores
from spanbert_jax.model import BertConfig, PretrainingHeads, train_step_flops

# Operations per second that training reaches: on one CPU core as measured for small models, and on an accelerator of
# an unknown kind, which most exceed.
_CORE_FLOPS, _ACCELERATOR_FLOPS = 50e9, 30e12
# The module of JAX's plugin for a kind of accelerator.
_PLUGINS = {"gpu": "jax_cuda12_plugin", "tpu": "libtpu"}
# Tokens in a step: those of the quickstart, and those of the published models; fewer where a small corpus would not
# give so many steps.
_CPU_TOKENS, _ACCELERATOR_TOKENS, _STEPS = 8192, 131_072, 400
# Memory of the activations of one microbatch: a share of a laptop's memory, and of an accelerator's.
_CPU_BYTES, _ACCELERATOR_BYTES = 2e9, 8e9
# A model is worth its size if it sees so many tokens for each parameter of its layers. The paper's model saw its corpus
# about 40 times.
_TOKENS_PER_PARAMETER, _EPOCHS = 20, 40
_MASKED_SHARE = 0.15


@dataclasses.dataclass(frozen=True)
class Machine:
    """What training uses on this machine. It is found without JAX, which must not be started before processes join."""
    accelerators: int  # GPUs or TPU chips; 0 trains on CPUs
    cores: int  # CPU cores of this process

    @property
    def flops(self) -> float:
        """Operations per second that training reaches, roughly."""
        return self.accelerators * _ACCELERATOR_FLOPS or self.cores * _CORE_FLOPS


@dataclasses.dataclass(frozen=True)
class Fit:
    """Settings of a run."""
    size: str  # named size
    batch_size: int  # rows in a step
    accumulation: int  # microbatches in a step
    steps: int  # of the run
    epochs: float  # how often the run sees each row


def this_machine(environ: Mapping[str, str] = os.environ, root: str = "/") -> Machine:
    """The machine of this process; JAX_PLATFORMS decides where it is set."""
    found = max(count_device_files(kind, root) if importlib.util.find_spec(plugin) else 0
                for kind, plugin in _PLUGINS.items())
    return Machine(0 if environ.get("JAX_PLATFORMS") == "cpu" else found, cpu_cores())


def fit_to_corpus(corpus: Corpus, machine: Machine, hours: float) -> Fit:
    """The largest size that sees enough tokens in the time, or the smallest size; and its batches and steps.

    The result depends on nothing that changes between two starts on one machine. Raises UserError for no time.
    """
    require(hours > 0, "hours", hours, "must be above 0")
    fits = [_fit(size, corpus, machine, hours) for size in BertConfig.sizes]
    enough = [fit for fit in fits if _seen(fit, corpus) >= _TOKENS_PER_PARAMETER * _layer_parameters(fit.size)]
    return (enough or fits[:1])[-1]


def _fit(size: str, corpus: Corpus, machine: Machine, hours: float) -> Fit:
    model, length, rows = BertConfig.named(size, vocab_size=corpus.vocab_size), corpus.length, corpus.num_rows["train"]
    tokens, memory = ((_ACCELERATOR_TOKENS, _ACCELERATOR_BYTES) if machine.accelerators else (_CPU_TOKENS, _CPU_BYTES))
    devices = machine.accelerators or 1
    wanted = min(tokens / length, _EPOCHS * rows / _STEPS)
    batch_size = devices * 2 ** max(0, math.floor(math.log2(max(wanted, 1) / devices)))
    flops = train_step_flops(model, batch_size, length, round(_MASKED_SHARE * length), PretrainingHeads())
    steps = max(1, round(min(3600 * hours * machine.flops / flops, _EPOCHS * rows / batch_size)))
    # Korthikanti et al. (2022), equation 2, in the width of the compute type.
    row_bytes = (1 if machine.accelerators else 2) * model.num_layers * length * (
        34 * model.width + 5 * model.num_heads * length)
    accumulation = next(parts for parts in (2**power for power in range(20))
                        if batch_size // devices * row_bytes <= parts * memory or batch_size <= parts * devices)
    return Fit(size, batch_size, accumulation, steps, steps * batch_size / max(rows, 1))


def _seen(fit: Fit, corpus: Corpus) -> int:
    """Tokens that a run sees, padding included."""
    return fit.steps * fit.batch_size * corpus.length


def _layer_parameters(size: str) -> int:
    """Parameters of the layers of a named size: 12 width^2 each."""
    shape = BertConfig.sizes[size]
    return 12 * shape["num_layers"] * shape["width"] ** 2
