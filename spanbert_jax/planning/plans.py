"""Plans: what the compilers say of a run on a topology, kept so that nothing is compiled twice."""
from __future__ import annotations

import dataclasses
from typing import Any

import ml_collections

from spanbert_jax.model import ModelConfig
from spanbert_jax.model.attention.self_attention import attention_spec
from spanbert_jax.planning.asking import ask
from spanbert_jax.planning.compiler.hlo import Collective
from spanbert_jax.planning.compiler.steps import Compiled, TooLarge
from spanbert_jax.planning.compiler.workload import workload
from spanbert_jax.planning.estimate import Estimate, estimate
from spanbert_jax.planning.hardware import Topology
from spanbert_jax.pretraining.config import model_config
from spanbert_jax.training.durations import RunSize

# What has no say in the program of a step, or none in what that needs.
_WITHOUT_SAY = ("data", "evaluation", "checkpoint", "profile", "init_from", "seed", "train.duration", "train.log_every")


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run on a topology, as the compilers see it.

    Attributes:
      batch_size: rows in a step over all devices.
      length: S.
      steps: of the whole run.
      found: what the compiler says of a step.
      estimate: its time; None where it does not fit or the compiler counts none.
    """
    topology: Topology
    batch_size: int
    length: int
    steps: int
    found: Compiled | TooLarge
    estimate: Estimate | None

    @property
    def tokens(self) -> int:
        """In the whole run, padding counted."""
        return self.steps * self.batch_size * self.length

    def seconds(self, raw: bool) -> float:
        """Of a step, with the communication that nothing hides, by one of the two ways of pricing it."""
        return (self.estimate.raw if raw else self.estimate.memory_priced) + self.estimate.exposed

    def utilization(self, raw: bool, communication: bool = False) -> float:
        """The share of the chip's peak that the model's operations make (MFU)."""
        time = self.seconds(raw) if communication else (self.estimate.raw if raw else self.estimate.memory_priced)
        return self.found.flops / self.topology.chip.flops / time


def make_plan(config: ml_collections.ConfigDict, topology: Topology) -> Plan:
    """Compiles the step of a run for a topology, unless that has been done, and estimates its time.

    Raises:
      UserError: the config does not go, or not with this topology, or the topology's compiler is not installed.
    """
    config, facts = workload(config)
    size = RunSize(config.train.batch_size, facts.length, facts.rows)
    steps = size.steps("config.train.duration", config.train.duration)
    said = ask(topology, {"config": _deciding(config), "facts": dataclasses.asdict(dataclasses.replace(facts, rows=0))})
    common = topology, config.train.batch_size, facts.length, steps
    if "too_large" in said:
        return Plan(*common, TooLarge(**said["too_large"]), None)
    compiled = Compiled(**said["compiled"] | {
        "collectives": tuple(Collective(**collective) for collective in said["compiled"]["collectives"])})
    cycles = _kernel_cycles(topology, compiled, model_config(config, facts.vocab_size))
    return Plan(*common, compiled, estimate(compiled, topology, cycles))


def _deciding(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The fields that decide what a step needs, and the one other batch that has to divide over the devices."""
    settings = config.to_dict()
    for field in _WITHOUT_SAY:
        section, _, name = field.partition(".")
        del (settings[section] if name else settings)[name or section]
    return {**settings, "evaluation": {"batch_size": config.evaluation.batch_size}}


def _kernel_cycles(topology: Topology, compiled: Compiled, network: ModelConfig) -> dict[str, float]:
    """Cycles of each kernel of the step for one row and head."""
    if not compiled.kernels:
        return {}
    spec = attention_spec(network)
    # One rate of dropout takes as long as another, and a slice as another of the same chips.
    spec = spec._replace(dropout=0.5 if spec.dropout else 0.0)
    one = dataclasses.replace(topology, shape=(2, 2, 1)[:topology.chip.dimensions], slices=1)
    return ask(one, {"kernel": compiled.attention, "length": compiled.length, "spec": spec._asdict()})["cycles"]
