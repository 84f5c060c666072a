"""Plans: the compiled train step of a run on a topology, with its memory and estimated time."""
import dataclasses
from typing import Any

from spanbert_jax.common.settings import to_dict
from spanbert_jax.model import ModelConfig
from spanbert_jax.planning.compilation import run_compiler
from spanbert_jax.planning.compiler.corpus_shape import resolve_config
from spanbert_jax.planning.compiler.hlo import Collective
from spanbert_jax.planning.compiler.steps import CompiledStep, OutOfMemory, name_in_layer
from spanbert_jax.planning.estimate import StepTime, estimate_step_time
from spanbert_jax.planning.hardware import Topology
from spanbert_jax.pretraining.config import PretrainingConfig, run_size

# Fields that change neither the compiled step nor its memory.
_IRRELEVANT_FIELDS = ("data", "evaluation", "checkpoint", "profile", "init_from", "seed", "train.duration",
                      "train.log_every", "train.batch_warmup")


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run on a topology."""
    topology: Topology
    batch_size: int  # rows in a step, over all devices
    length: int  # tokens in a row, S
    steps: int  # of the whole run; where the batch grows at first, as many full ones as use the same data
    step: CompiledStep | OutOfMemory  # the compiled step, or why it does not compile
    time: StepTime | None  # estimated time of a step; None if it does not fit, or the compiler counts no cycles

    @property
    def tokens_per_step(self) -> int:
        """Tokens in a step over all devices, padding included."""
        return self.batch_size * self.length

    @property
    def fits(self) -> bool:
        """Whether the step fits in the memory of a device."""
        if isinstance(self.step, OutOfMemory):
            return False
        return self.step.total_bytes <= self.topology.memory


def make_plan(config: PretrainingConfig, topology: Topology) -> Plan:
    """Compiles the train step of a run for a topology, or takes it from the cache, and estimates its time.

    Raises:
      UserError: the config is not valid or does not fit the topology, or the topology's compiler is not installed.
    """
    config, corpus = resolve_config(config)
    size, batch_warmup = run_size(config, corpus.length, corpus.rows)
    steps = size.steps("config.train.duration", config.train.duration, batch_warmup.steps_of)
    full = round(batch_warmup.used_before(steps) / batch_warmup.parts)
    run = topology, config.train.batch_size, corpus.length, full
    result = run_compiler(topology, {"config": _relevant_fields(config),
                                     "corpus": dataclasses.asdict(dataclasses.replace(corpus, rows=0))})
    if "out_of_memory" in result:
        return Plan(*run, OutOfMemory(**result["out_of_memory"]), None)
    fields = result["compiled"]
    step = CompiledStep(**fields | {"collectives": tuple(Collective(**each) for each in fields["collectives"])})
    cycles = _kernel_cycles(topology, step, config.model.config(corpus.vocab_size))
    return Plan(*run, step, estimate_step_time(step, topology, cycles))


def _relevant_fields(config: PretrainingConfig) -> dict[str, Any]:
    """The fields that the step depends on, and the batch size of evaluation, which the devices must divide."""
    settings = to_dict(config)
    for field in _IRRELEVANT_FIELDS:
        section, _, name = field.partition(".")
        del (settings[section] if name else settings)[name or section]
    return {**settings, "evaluation": {"batch_size": config.evaluation.batch_size}}


def _kernel_cycles(topology: Topology, step: CompiledStep, model: ModelConfig) -> dict[str, float]:
    """Cycles of each kernel of the step for one row and head."""
    if not step.kernels:
        return {}
    smallest = dataclasses.replace(topology, shape=(2, 2, 1)[:topology.chip.dimensions], slices=1)
    cycles: dict[str, float] = {}
    for spec in model.attention_specs:
        # The cycles depend neither on the rate of dropout nor on the size of the slice.
        spec = spec._replace(dropout=0.5 if spec.dropout else 0.0)
        request = {"kernel": step.attention, "length": step.length, "spec": spec._asdict(),
                   "rotary": model.rotary_positions}
        found = run_compiler(smallest, request)["cycles"]
        cycles |= {name_in_layer(name, spec.window): count for name, count in found.items()}
    return cycles
