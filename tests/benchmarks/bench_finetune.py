"""Fine-tuning against transformers and torch: scores on the same data, and training time.

  python -m tests.benchmarks.bench_finetune --config configs/squad.py:small=true --seeds 3 --workdir runs/compare
  python -m tests.benchmarks.bench_finetune --config configs/sentiment.py:small=true --seeds 3 --workdir runs/rates \\
      --sides theirs --config.optimizer.learning_rate=5e-5

Only the training differs. Both sides have the same data splits and features, initial weights, loss, AdamW with its
learning rates, gradient clipping, dropout rates, evaluation steps, decoding and scoring, in float32 on all cores. Each
side initializes its own head, and draws its own dropout and order. transformers must be able to load config.init_from.

Theirs is the usual program: BertFor... with its default attention, the features shuffled in every epoch, batches padded
to their longest feature, torch's fused AdamW, which is the Trainer's default, and the best state kept in memory. Its
softmax over positions ignores padding, as ours does. In the schedule of transformers the first update has a learning
rate of 0, in ours the last.

Updates: ours has a fixed number of rows per update, with several features packed into each row, and the number of
updates that follows from config.train.duration. Theirs makes the same number of updates over the same epochs: the
shuffled epochs are one stream, cut so that each update has as many features as ours on average, rounded up or down.

Time: that of the training steps, including waiting for batches, per example (in question answering, per question).
Evaluation, compilation and calls that save are not included, but saving in the background slows down our steps. Both
processes keep freed memory. The machine should be idle: torch's threads wait for each other at every operation, and
other load slows them down far more than ours. The table states how many cores other programs used.

In coreference theirs is the model of `torch_coreference`, whose updates have the same number of rows of documents.

The sides alternate seed by seed, each in a new process. Results are stored in the workdir as SIDE-SEED.json. After a
stop, the same command continues: ours from its last checkpoint, theirs from the start of the interrupted seed.
"""
from __future__ import annotations

import argparse
import copy
import itertools
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import rich.console
import rich.table

from spanbert_jax.checkpoints import FOLDER
from spanbert_jax.commands.config_files import load_config
from spanbert_jax.commands.train import parse
from spanbert_jax.common.files import write_text
from spanbert_jax.common.settings import require, to_dict
from spanbert_jax.finetuning.config import FinetuningConfig, as_finetuning_config, task_of
from spanbert_jax.finetuning.run import RESULTS_FILE, build, finetune
from spanbert_jax.tasks.features import Features
from spanbert_jax.training.experiment import Experiment
from spanbert_jax.training.host_memory import keep_freed_memory
from spanbert_jax.training.init_from import with_architecture
from spanbert_jax.training.trackers import read_metrics

if TYPE_CHECKING:
    import torch

SIDES = {"ours": "ours", "theirs": "transformers"}
COREFERENCE = "coreference"
CLASSES = {"question_answering": "BertForQuestionAnswering", "text_classification": "BertForSequenceClassification"}
# What theirs does; with other values of these the sides would differ in more than the training program.
_FIXED = {"compute.dtype": "float32", "optimizer.name": "adamw", "schedule.name": "triangular",
          "schedule.final_fraction": 0.0, "optimizer.decay_mask": "kernels", "optimizer.freeze": "",
          "optimizer.layer_decay": 1.0, "optimizer.options": "", "train.accumulation": 1, "skip.stop_after": 0}


def make_config(path: str, overrides: Sequence[str], seed: int) -> FinetuningConfig:
    """The config of a seed.

    Raises:
      UserError: when it is wrong, or asks for what only ours does.
    """
    config = as_finetuning_config(load_config(path, [*overrides, f"--config.seed={seed}"]))
    config.validate("config")
    for field, value in _FIXED.items():
        section, name = field.split(".")
        found = getattr(getattr(config, section), name)
        require(found == value, f"config.{field}", found, f"theirs only supports {value!r}")
    require(config.task.name in (*CLASSES, COREFERENCE) and not getattr(config.task, "regression", False),
            "config.task.name", config.task.name,
            f"theirs only supports {', '.join(CLASSES)} and {COREFERENCE}, without regression")
    require(not getattr(config.task, "pair_categories", False), "config.task.pair_categories", True,
            "theirs has no categories of pairs")
    require(bool(config.task.dev or config.task.dev_fraction), "config.task.dev", "",
            "name dev files, or set config.task.dev_fraction")
    return config


def run_side(side: str, path: str, overrides: Sequence[str], seed: int, workdir: pathlib.Path) -> None:
    """Trains one side with one seed, and writes its results unless it was stopped."""
    keep_freed_memory()
    config, folder = make_config(path, overrides, seed), workdir / f"{side}-{seed}"
    experiment = build(with_architecture(config, folder, keep_positions=True), folder)
    began, others = time.perf_counter(), seconds_of_others()
    figures = ours(config, folder) if side == "ours" else theirs(experiment)
    if figures is None:
        return
    others = (seconds_of_others() - others) / (time.perf_counter() - began)
    figures |= {"config": plain(config), "sizes": sizes(experiment),
                "cores": len(os.sched_getaffinity(0)), "cores_of_others": others,
                "examples": experiment.size.total_steps * experiment.size.batch_size}
    write_text(workdir / f"{side}-{seed}.json", json.dumps(figures, indent=2) + "\n")
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def seconds_of_others() -> float:
    """Core seconds that went to other processes, and to other guests of the machine, since it started."""
    user, nice, system, _, _, irq, softirq, steal = map(int, pathlib.Path("/proc/stat").read_text().split()[1:9])
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return busy - time.process_time()


def sizes(experiment: Experiment) -> str:
    """Sizes of the training and evaluation data as text."""
    size, learning = experiment.size, experiment.workload
    parts, rows, per_step = learning.dataset.examples, learning.dataset.rows["train"], learning.rows_per_step
    return (f"{', '.join(f'{len(examples):,} {part}' for part, examples in parts.items())} examples; "
            f"{len(rows.features):,} features of {rows.features.lengths.mean():.0f} tokens to train on; "
            f"{size.total_steps:,} updates of {size.batch_size:.1f} examples: {per_step} rows of {rows.length} tokens, "
            f"{rows.filled:.0%} full, or {per_step * len(rows.features) / len(rows):.1f} features")


def plain(config: FinetuningConfig) -> Any:
    """A config as plain values, as loaded from JSON."""
    return json.loads(json.dumps(to_dict(config)))


def ours(config: FinetuningConfig, folder: pathlib.Path) -> dict[str, Any] | None:
    """Scores of each data split and seconds in training steps; None if it was stopped."""
    import jax
    if not finetune(config, folder).finished:
        return None
    spent = [line for line in read_metrics(folder) if line["kind"] == "goodput"][-1]
    return {"scores": json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8")),
            "seconds": spent["steps_seconds"] + spent["data_seconds"], "with": f"jax {jax.__version__}"}


def theirs(experiment: Experiment) -> dict[str, Any]:
    """The same for transformers."""
    import torch
    import transformers
    config, learning, total = experiment.config, experiment.workload, experiment.size.total_steps
    torch.manual_seed(config.seed)
    transformers.logging.set_verbosity_error()  # it warns of the new head
    program = program_of(config.task.name)
    model = program.make_model(experiment)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, config.optimizer.weight_decay), lr=config.optimizer.learning_rate,
        betas=(config.optimizer.b1, config.optimizer.b2), eps=config.optimizer.eps, fused=True)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, experiment.steps("schedule", "warmup"), total)
    every, best, seconds = experiment.steps("evaluation", "every"), None, 0.0
    for step, batch in enumerate(program.batches(experiment), 1):
        began = time.perf_counter()
        loss = update(model, optimizer, schedule, lambda: program.loss_of(model, batch), config.optimizer.clip_norm)
        seconds += time.perf_counter() - began
        # As `training.loop` has it: just before the end, where it is evaluated anyway, once is enough.
        if step == total or (every and step % every == 0 and total - step >= every / 2):
            score = program.scores_of(model, experiment, "dev")[learning.metric]
            print(f"theirs, seed {config.seed}: step {step:,} of {total:,}: {learning.metric} {score:.2f}, "
                  f"loss {loss:.3f}, {seconds / step:.3f} s a step", flush=True)
            if best is None or score > best[0]:
                best = score, copy.deepcopy(model.state_dict())
    model.load_state_dict(best[1])
    return {"scores": {part: program.scores_of(model, experiment, part) for part in ("dev", "test")
                       if part in learning.dataset.examples},
            "seconds": seconds, "with": f"transformers {transformers.__version__}, torch {torch.__version__}, "
                                        f"{torch.get_num_threads()} threads"}


def program_of(task: str) -> ModuleType:
    """The module with the training program of a task."""
    from tests.benchmarks import torch_coreference
    return torch_coreference if task == COREFERENCE else sys.modules[__name__]


def make_model(experiment: Experiment) -> torch.nn.Module:
    """The model of `config.init_from` with a new head."""
    import transformers
    config, network = experiment.config, experiment.workload.model.config
    labels = experiment.workload.dataset.task.labels
    return getattr(transformers, CLASSES[config.task.name]).from_pretrained(
        config.init_from, num_labels=len(labels) or 2, hidden_dropout_prob=network.dropout,
        attention_probs_dropout_prob=network.attention_dropout)


def update(model: torch.nn.Module, optimizer: torch.optim.Optimizer, schedule: Any,
           compute_loss: Callable[[], torch.Tensor], clip_norm: float) -> float:
    """Trains on a batch. Returns the loss."""
    import torch
    model.train()
    loss = compute_loss()
    loss.backward()
    if clip_norm:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def parameter_groups(model: torch.nn.Module, decay: float) -> list[dict[str, Any]]:
    """Parameter groups: kernels and embeddings with weight decay, biases and layer norms without."""
    names = dict(model.named_parameters())
    still = {name for name in names if name.endswith("bias") or "LayerNorm" in name}
    return [{"params": [value for name, value in names.items() if name not in still], "weight_decay": decay},
            {"params": [names[name] for name in sorted(still)], "weight_decay": 0.0}]


def batches(experiment: Experiment) -> Iterator[tuple[Features, np.ndarray]]:
    """The features of each update, as many as in our rows on average; an update may span two epochs."""
    rows, per_step, total = (experiment.workload.dataset.rows["train"], experiment.workload.rows_per_step,
                             experiment.size.total_steps)
    count, random = len(rows.features), np.random.default_rng(experiment.config.seed)
    ends = [step * per_step * count // len(rows) for step in range(total + 1)]
    stream = np.concatenate([random.permutation(count) for _ in range(-(-ends[-1] // count))])
    for start, end in itertools.pairwise(ends):
        yield rows.features, stream[start:end]


def inputs_of(features: Features, chosen: np.ndarray) -> dict[str, torch.Tensor]:
    """A batch of features [B], padded to the longest."""
    import torch

    def padded(values: np.ndarray) -> torch.Tensor:
        pieces = [torch.from_numpy(values[features.token_slice(feature)].astype(np.int64))
                  for feature in chosen.tolist()]
        return torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True)

    tokens, lengths = padded(features.tokens), torch.from_numpy(features.lengths[chosen])
    return {"input_ids": tokens, "token_type_ids": padded(features.token_types),
            "attention_mask": (torch.arange(tokens.shape[1]) < lengths[:, None]).long()}


def loss_of(model: torch.nn.Module, batch: tuple[Features, np.ndarray]) -> torch.Tensor:
    """The task's loss: a mean over the features [B] of weight 1."""
    import torch
    features, chosen = batch
    inputs = inputs_of(features, chosen)
    outputs, mask = model(**inputs), inputs["attention_mask"]

    def column(name: str) -> torch.Tensor:
        return torch.from_numpy(features.columns[name][chosen])

    def losses(logits: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, column(name).long(), reduction="none")

    if "label" in features.columns:
        values = losses(outputs.logits, "label")
    else:
        start, end = (logits.masked_fill(mask == 0, torch.finfo(logits.dtype).min)
                      for logits in (outputs.start_logits, outputs.end_logits))
        values = (losses(start, "start") + losses(end, "end")) / 2
    weight = column("weight")
    return (values * weight).sum() / weight.sum().clamp(min=1)


def scores_of(model: torch.nn.Module, experiment: Experiment, part: str) -> dict[str, float]:
    """The scores of a data split, decoded and scored as ours; the task is tuned on the dev split."""
    dataset = experiment.workload.dataset
    task, examples, features = dataset.task, dataset.examples[part], dataset.rows[part].features
    outputs = outputs_of(model, features, experiment.config.evaluation.batch_size)
    predictions = task.decode(examples, features, outputs)
    if part == "dev":
        task = task.tune(examples, predictions)
        predictions = task.decode(examples, features, outputs)
    return task.score(examples, predictions)


def outputs_of(model: torch.nn.Module, features: Features, size: int) -> dict[str, np.ndarray]:
    """The model's outputs of all features, `size` at a time, in the layout of `Task.decode`."""
    import torch
    model.eval()
    order, found = np.argsort(-features.lengths, kind="stable"), {}
    for start in range(0, len(order), size):
        chosen = order[start:start + size]
        with torch.inference_mode():
            outputs = model(**inputs_of(features, chosen))
        for name, values in ((name, value.numpy()) for name, value in outputs.items()):
            if name == "logits":
                found.setdefault(name, np.zeros((len(features), values.shape[1]), np.float32))[chosen] = values
                continue
            flat = found.setdefault(name, np.zeros(len(features.tokens), np.float32))
            for feature, row in zip(chosen.tolist(), values):
                flat[features.token_slice(feature)] = row[:features.lengths[feature]]
    return found


def report(workdir: pathlib.Path, seeds: int, metric: str) -> None:
    """Prints the table of all results so far."""
    files = {side: [workdir / f"{side}-{seed}.json" for seed in range(seeds)] for side in SIDES}
    found = {side: [json.loads(file.read_text(encoding="utf-8")) for file in of_side if file.exists()]
             for side, of_side in files.items()}
    found = {side: records for side, records in found.items() if records}
    speeds = {side: statistics.median(1000 * record["seconds"] / record["examples"] for record in records)
              for side, records in found.items()}
    table = rich.table.Table("side", "with", "cores (others used)", "seeds", f"dev {metric}", f"test {metric}",
                             "s per 1,000 training examples", "times transformers")
    for side, records in found.items():
        cores = {str(record["cores"]) for record in records}
        most = max(record["cores_of_others"] for record in records)
        table.add_row(
            SIDES[side], "; ".join(sorted({record["with"] for record in records})),
            f"{', '.join(sorted(cores))} (at most {most:.2f})", str(len(records)),
            *(mean([record["scores"][part][metric] for record in records if part in record["scores"]])
              for part in ("dev", "test")),
            f"{speeds[side]:.2f}", f"{speeds['theirs'] / speeds[side]:.2f}" if "theirs" in speeds else "-")
    console = rich.console.Console(width=160)
    console.print(table)
    for words in sorted({record["sizes"] for records in found.values() for record in records}):
        console.print(words)


def mean(values: list[float]) -> str:
    """A mean and the sample standard deviation as text."""
    if not values:
        return "-"
    return f"{statistics.fmean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def main() -> None:
    """Runs all sides and seeds without results, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sides", default="ours,theirs")
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    args = parse(parser, None)
    context = multiprocessing.get_context("spawn")  # neither side finds what the other has done to the process
    signal.signal(signal.SIGTERM, lambda *_: [child.terminate() for child in multiprocessing.active_children()])
    args.workdir.mkdir(parents=True, exist_ok=True)
    for seed in range(args.seeds):
        config = make_config(args.config, args.overrides, seed)
        for side in args.sides.split(","):
            file = args.workdir / f"{side}-{seed}.json"
            if not file.exists():
                child = context.Process(target=run_side, args=(side, args.config, args.overrides, seed, args.workdir))
                child.start()
                child.join()
            if not file.exists():
                parser.exit(1, f"{side}, seed {seed}: not finished; run the same command again to continue\n")
            if json.loads(file.read_text(encoding="utf-8"))["config"] != plain(config):
                parser.error(f"{file}: of another config; give another workdir")
    report(args.workdir, args.seeds, task_of(config).metric)


if __name__ == "__main__":
    main()
