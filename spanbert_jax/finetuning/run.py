"""A fine-tuning run: training, then the best model with its task, predictions and scores."""
import json
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import ml_collections

from spanbert_jax.checkpoints import Checkpointer
from spanbert_jax.cluster.agreement import broadcast_from_zero, is_process_zero
from spanbert_jax.common.directories import make_own_directory
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import write_text
from spanbert_jax.common.paths import utf8_path
from spanbert_jax.common.settings import CONFIG_ADVICE
from spanbert_jax.finetuning.config import FinetuningConfig, as_finetuning_config, task_of
from spanbert_jax.finetuning.dataset import make_dataset
from spanbert_jax.finetuning.workload import TaskWorkload
from spanbert_jax.inference.files import class_metrics, prediction_files
from spanbert_jax.inference.model_folder import MODEL_FOLDER, FineTuned, StoredTask, require_replaceable, save_model
from spanbert_jax.interop.pretrained import load_tokenizer
from spanbert_jax.tasks.features import check_ids
from spanbert_jax.text import vocabulary_size
from spanbert_jax.training.config import check_kind, started_values
from spanbert_jax.training.durations import RunSize
from spanbert_jax.training.experiment import Experiment, build_experiment, with_attention
from spanbert_jax.training.init_from import with_architecture
from spanbert_jax.training.loop import TrainingLoop
from spanbert_jax.training.mesh import check_batch, make_mesh
from spanbert_jax.training.run import RunResult, open_run
from spanbert_jax.training.sweep import RESULTS_FILE

PREDICTIONS_FOLDER = "predictions"
_TOKENIZER_FILE = "tokenizer.json"
logger = logging.getLogger("spanbert_jax")


def finetune(config: Annotated[ml_collections.ConfigDict | FinetuningConfig, CONFIG_ADVICE],
             workdir: str | os.PathLike, *, force: bool = False, time_limit: float = 0.0,
             verbose: bool = False) -> RunResult:
    """Fine-tunes the task of a config, or continues the run in `workdir`.

    In addition to the files of every run, the workdir gets `model/` with the best model by the dev metric and its task,
    `results.json` with the scores of dev and test and of each class, and `predictions/PART/` in the task's official
    formats.

    Args:
      force, time_limit, verbose: as for `pretraining.train`.

    Raises:
      as `pretraining.train` does.
    """
    config, workdir = as_finetuning_config(config), utf8_path(workdir)
    config.validate("config")
    check_kind(workdir, config)
    config = with_architecture(config, workdir, keep_positions=True)
    make_mesh(config.mesh)  # fails before the data is read
    require_replaceable(workdir / MODEL_FOLDER)
    with open_run(workdir, force, time_limit, verbose) as run:
        experiment = build(config, workdir)
        loop = run.train(experiment)
        if loop.finished:
            with jax.set_mesh(experiment.mesh):
                export_results(config.task.name, experiment, loop, workdir)
        return run.result(experiment, loop)


def build(config: FinetuningConfig, workdir: pathlib.Path) -> Experiment[TaskWorkload]:
    """The parts of a fine-tuning run. Raises UserError if data, config and devices do not fit together."""
    mesh, rules = make_mesh(config.mesh), config.mesh.rules
    check_batch(mesh, rules, "config.evaluation.batch_size", config.evaluation.batch_size)
    tokenizer = load_tokenizer(_tokenizer_path(config, workdir))
    encoder = config.model.config(vocabulary_size(tokenizer))
    if (length := task_of(config).settings.length) > encoder.max_positions:
        further = "" if encoder.rotary_positions else ", whose further positions repeat the learned ones"
        raise UserError(f"config.task.length={length}: the model of {config.init_from} has {encoder.max_positions} "
                        f"positions; use at most that many, or set config.model.max_positions{further}")
    dataset = make_dataset(config, tokenizer)
    rows = dataset.rows["train"]
    compute = with_attention(config.compute, encoder, mesh, rules, rows.length)
    model = dataset.task.build_model(encoder, compute, tokenizer)
    for packed in dataset.rows.values():
        check_ids(packed.features, model)
    if encoder.token_types == 1 and rows.features.token_types.any():
        logger.warning("the model has one token type: both texts of a pair have it, as in RoBERTa")
    local_model = dataset.task.build_model(encoder, compute.replace(attention="auto"), tokenizer)
    workload = TaskWorkload(config, dataset, model, local_model, mesh)
    examples = workload.rows_per_step * len(dataset.examples["train"]) / len(rows)  # per step, on average
    size = RunSize(examples, workload.rows_per_step * rows.length / examples, len(dataset.examples["train"]))
    return build_experiment(config, workload, model, mesh, size)


def _tokenizer_path(config: FinetuningConfig, workdir: pathlib.Path) -> str | pathlib.Path:
    """The run's own tokenizer if it has started: the initial weights may be gone by then."""
    own = workdir / _TOKENIZER_FILE
    started = own.exists() and started_values(workdir).get("init_from") == config.init_from
    return own if started else config.task.tokenizer or config.init_from


def export_results(name: str, experiment: Experiment[TaskWorkload], loop: TrainingLoop, workdir: pathlib.Path) -> None:
    """Writes the model of a finished run with its task, of a given name, and scores and predictions."""
    workload, config = experiment.workload, experiment.config
    step, params = _best_params(experiment, loop, workdir)
    results: dict[str, Any] = {"step": step}
    task = workload.dataset.task
    for part in ("dev", "test"):
        if part in workload.dataset.examples:
            latest = workload.latest if part == "dev" and step == loop.step else None
            predicted = latest or workload.evaluator.predict(part, task, params, loop.call)
            task = predicted.task
            results[part] = predicted.metrics | class_metrics(task, workload.dataset.examples[part],
                                                              predicted.predictions)
            if is_process_zero():
                folder = workdir / PREDICTIONS_FOLDER / part
                make_own_directory(folder.parent)
                make_own_directory(folder)
                files = prediction_files(task, workload.dataset.examples[part], predicted.predictions)
                for file, text in files.items():
                    write_text(folder / file, text)
    if jax.process_count() > 1:
        params = jax.jit(lambda tree: tree, out_shardings=jax.sharding.NamedSharding(
            experiment.mesh, jax.sharding.PartitionSpec()))(params)
    if is_process_zero():
        stored = StoredTask(name, task, config.plugins, _describe_run(config, workload, results))
        save_model(workdir / MODEL_FOLDER, FineTuned(stored, workload.local_model, params, workload.dataset.tokenizer))
        write_text(workdir / RESULTS_FILE, json.dumps(results, indent=2) + "\n")


def _describe_run(config: Any, workload: TaskWorkload, results: Mapping[str, Any]) -> dict[str, Any]:
    """What the model card shows of a run."""
    return {"data": config.task.train, "examples": {part: len(found) for part, found in
                                                    workload.dataset.examples.items()},
            "step": results["step"], "batch_size": config.train.batch_size, "init_from": config.init_from,
            "optimizer": config.optimizer.name, "learning_rate": config.optimizer.learning_rate,
            "schedule": config.schedule.name,
            "scores": {part: {name: value for name, value in results[part].items() if name != "classes"}
                       for part in workload.dataset.examples if part in results}}


def _best_params(experiment: Experiment, loop: TrainingLoop, workdir: pathlib.Path) -> tuple[int, Any]:
    """Step and parameters of the best stored checkpoint, or of the last step."""
    step, params = loop.step, loop.state.params
    with Checkpointer(workdir, read_only=True) as checkpointer:
        stored = [best for best in loop.best.steps if best in broadcast_from_zero(checkpointer.steps())]
        if stored and stored[-1] != step:
            step = stored[-1]
            params = checkpointer.restore_params(step, experiment.abstract_state.params)
    if loop.best.steps and step != loop.best.steps[-1]:
        logger.warning("the best checkpoint, of step %s, could not be saved: the one of step %s is used",
                       f"{loop.best.steps[-1]:,}", f"{step:,}")
    return step, params
