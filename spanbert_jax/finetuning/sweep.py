"""Sweeps over fine-tuning runs."""
import pathlib

from spanbert_jax.checkpoints import remove_checkpoints
from spanbert_jax.finetuning.config import FinetuningConfig, as_finetuning_config, from_values, task_of
from spanbert_jax.finetuning.run import finetune
from spanbert_jax.training.config import load_values
from spanbert_jax.training.sweep import Sweep


def _run(config: FinetuningConfig, workdir: pathlib.Path) -> bool:
    return finetune(config, workdir).finished


# A finished run keeps its model, scores and predictions, but not its checkpoints.
sweep = Sweep(as_finetuning_config, lambda workdir: from_values(load_values(workdir)), _run,
              lambda config: task_of(config).metric, tidy=remove_checkpoints)
