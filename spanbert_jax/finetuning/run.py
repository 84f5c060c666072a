"""A fine-tuning run: training as in pretraining, then the best network with its task, predictions and scores."""
from __future__ import annotations

import json
import logging
import os
import pathlib
from typing import Any

import jax
import ml_collections

from spanbert_jax.checkpoints import Checkpointer
from spanbert_jax.cluster.agreement import broadcast_from_zero, is_process_zero
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import write_text
from spanbert_jax.common.settings import to_dict
from spanbert_jax.finetuning.config import FinetuningConfig, as_finetuning_config
from spanbert_jax.finetuning.dataset import make_dataset
from spanbert_jax.finetuning.decoders import with_decoder
from spanbert_jax.finetuning.seq2seq_workload import Seq2SeqWorkload
from spanbert_jax.finetuning.workload import TaskWorkload
from spanbert_jax.inference.model_folder import MODEL_FOLDER, FineTuned, save_model
from spanbert_jax.interop.pretrained import load_tokenizer
from spanbert_jax.model import DEFAULT_LABELS, EncoderModel, ModelConfig
from spanbert_jax.tasks.protocol import Prediction
from spanbert_jax.tasks.seq2seq import Seq2SeqTask
from spanbert_jax.training.durations import RunSize
from spanbert_jax.training.experiment import Experiment, build_experiment, with_attention
from spanbert_jax.training.init_from import DECIDED_WITH_POSITIONS, with_architecture
from spanbert_jax.training.loop import TrainingLoop
from spanbert_jax.training.mesh import check_batch, make_mesh
from spanbert_jax.training.run import RunResult, open_run
from spanbert_jax.training.stored_config import CONFIG_FILE, load_values
from spanbert_jax.training.workload import Call

RESULTS_FILE, PREDICTIONS_FOLDER = "results.json", "predictions"
_TOKENIZER_FILE = "tokenizer.json"
logger = logging.getLogger("spanbert_jax")


def finetune(config: ml_collections.ConfigDict | FinetuningConfig, workdir: str | os.PathLike, *, force: bool = False,
             time_limit: float = 0.0) -> RunResult:
    """Fine-tunes what a config describes, or goes on where a run in `workdir` stopped.

    Besides what every run leaves there, the workdir gets `model/` with the best network by the dev metric and its task,
    `results.json` with the scores of each held-back part, and `predictions/PART/` in the task's official formats.

    Args:
      force, time_limit: as `training.train` takes them.

    Raises:
      as `training.train` does.
    """
    config, workdir = as_finetuning_config(config), pathlib.Path(workdir)
    config.validate("config")
    config = with_architecture(config, workdir, DECIDED_WITH_POSITIONS)
    make_mesh(config.mesh)  # refused before the data is read
    with open_run(workdir, force, time_limit) as run:
        experiment = build(config, workdir)
        loop = run.train(experiment)
        if loop.finished:
            with jax.set_mesh(experiment.mesh):
                export_results(experiment, loop, workdir)
        return run.result(experiment, loop)


def build(config: FinetuningConfig, workdir: pathlib.Path) -> Experiment:
    """The parts of a fine-tuning run.

    Raises:
      UserError: when data, config and devices do not go together.
    """
    mesh, rules = make_mesh(config.mesh), config.mesh.rules
    check_batch(mesh, rules, "config.evaluation.batch_size", config.evaluation.batch_size)
    if config.task.length > config.model.max_positions:
        raise UserError(f"config.task.length={config.task.length}: the network of {config.init_from} has "
                        f"{config.model.max_positions} positions; take at most so many")
    # A run that has begun has its tokenizer: what it began from need not be there any more.
    own = workdir / _TOKENIZER_FILE
    begun = own.exists() and (workdir / CONFIG_FILE).exists() and load_values(workdir)["init_from"] == config.init_from
    tokenizer = load_tokenizer(own if begun else config.task.tokenizer or config.init_from)
    dataset = make_dataset(config, tokenizer)
    rows = dataset.rows["train"]
    network = with_attention(network_of(config, tokenizer.get_vocab_size()), config.compute.attention, mesh, rules,
                             rows.length)
    if isinstance(dataset.task, Seq2SeqTask):
        model = with_decoder(network, dataset.task, tokenizer)
        learning = Seq2SeqWorkload(config, dataset, model, mesh)
    else:
        model = EncoderModel(network, dataset.task.head, dataset.task.labels or DEFAULT_LABELS)
        learning = TaskWorkload(config, dataset, model, mesh)
    examples = learning.rows_per_step * len(dataset.examples["train"]) / len(rows)  # in a step, on average
    size = RunSize(examples, learning.rows_per_step * rows.length / examples, len(dataset.examples["train"]))
    return build_experiment(config, learning, model, mesh, size)


def network_of(config: FinetuningConfig, vocab_size: int) -> ModelConfig:
    """The network that a config asks for, without the heads of pretraining; attention is plain where "auto"."""
    fields = {name: value for name, value in (to_dict(config.model) | to_dict(config.compute)).items()
              if name not in ("architecture", "size", "boundary_features")}
    if fields["attention"] == "auto":
        del fields["attention"]
    return ModelConfig(vocab_size=vocab_size, boundary_head=False, **fields)


def export_results(experiment: Experiment, loop: TrainingLoop, workdir: pathlib.Path) -> None:
    """Writes what a finished run is for: the network, its task, scores and predictions."""
    learning, step, params = experiment.workload, loop.step, loop.state.params
    with Checkpointer(workdir, read_only=True) as checkpointer:
        stored = [best for best in loop.best.steps if best in broadcast_from_zero(checkpointer.steps())]
        if stored and stored[-1] != step:
            step = stored[-1]
            params = checkpointer.restore_params(step, experiment.abstract_state.params)
    if loop.best.steps and step != loop.best.steps[-1]:
        logger.warning("the best checkpoint, that of step %s, could not be saved: that of step %s is taken",
                       f"{loop.best.steps[-1]:,}", f"{step:,}")
    results: dict[str, Any] = {"step": step}
    for part in ("dev", "test"):
        if part in learning.dataset.examples:
            at_hand = learning.latest if part == "dev" and step == loop.step else None
            results[part] = _measure(learning, part, params, loop.compiled, at_hand,
                                     workdir / PREDICTIONS_FOLDER / part)
    if jax.process_count() > 1:
        params = jax.jit(lambda tree: tree, out_shardings=jax.sharding.NamedSharding(
            experiment.mesh, jax.sharding.PartitionSpec()))(params)
    if is_process_zero():
        name = experiment.config.task.name
        model = learning.plain_model
        save_model(workdir / MODEL_FOLDER, FineTuned(name, learning.task, model, params, learning.dataset.tokenizer))
        write_text(workdir / RESULTS_FILE, json.dumps(results, indent=2) + "\n")


def _measure(learning: TaskWorkload, part: str, params: Any, call: Call, predictions: list[Prediction] | None,
             folder: pathlib.Path) -> dict[str, float]:
    """Scores a part, and writes its predictions, which are made unless they are at hand."""
    dataset = learning.dataset
    if predictions is None:
        predictions = learning.predict(part, params, call, lambda: None)
    if is_process_zero():
        folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(prediction, ensure_ascii=False) + "\n" for prediction in predictions)
        for name, text in {"predictions.jsonl": lines,
                           **learning.task.files(dataset.examples[part], predictions)}.items():
            write_text(folder / name, text)
    return learning.task.score(dataset.examples[part], predictions)
