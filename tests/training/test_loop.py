"""Whole runs from the command line: training, stopping, going on, evaluation, and what is refused."""
import json
import os
import pathlib
import pydoc_data.topics
import signal
import subprocess
import sys

import numpy as np
import pytest

import spanbert_jax
from spanbert_jax.errors import UserError
from spanbert_jax.training.checkpoints import Checkpointer
from spanbert_jax.training.tracking import MetricsWriter, hold, read_metrics

CONFIG = '''
"""A run of seconds."""
from spanbert_jax.training import default_config

def get_config():
    config = default_config()
    config.model.size, config.model.dtype, config.model.layers = "tiny", "float32", "scanned"
    config.model.max_positions = 64
    config.optimizer.learning_rate, config.optimizer.warmup = 1e-3, "2 steps"
    config.train.duration, config.train.batch_size, config.train.log_every = "12 steps", 8, 1
    config.evaluation.every, config.evaluation.batch_size = "6 steps", 8
    config.evaluation.max_rows = 20
    config.checkpoint.every, config.checkpoint.keep, config.checkpoint.keep_every = "5 steps", 1, "10 steps"
    return config
'''


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> pathlib.Path:
    """A folder with a config file and a prepared corpus of the language reference in every Python."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.py").write_text(CONFIG)
    texts = folder / "texts"
    texts.mkdir()
    for name, text in list(pydoc_data.topics.topics.items())[:40]:
        (texts / f"{name}.txt").write_text(text, encoding="utf-8")
    spanbert_jax.prepare(str(texts), folder / "corpus", vocab_size=600, length=64, validation_fraction=0.1, workers=1,
                         progress=False)
    return folder


def command(files, workdir, *overrides: str, devices: int = 1, verb: str = "train"):
    """The arguments and the environment of a run of its own process."""
    config = [f"--config={files / 'config.py'}", f"--config.data.path={files / 'corpus'}"] if verb == "train" else []
    argv = [sys.executable, "-m", "spanbert_jax", verb, "--workdir", str(workdir), *config, *overrides]
    return argv, {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}


def run(*args, status: int = 0, **kwargs) -> subprocess.CompletedProcess:
    argv, environment = command(*args, **kwargs)
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stderr
    return done


def stop_at(step: int, number: int, *args, **kwargs) -> int:
    """Starts a run, sends it a signal when it tells of `step`, and returns its exit status."""
    argv, environment = command(*args, **kwargs)
    with subprocess.Popen(
            argv, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        for line in process.stderr:
            if line.startswith(f"step {step}/"):
                process.send_signal(number)
                break
        process.stderr.read()
    return process.returncode


def train_losses(workdir) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_metrics(workdir) if line["kind"] == "train"}


@pytest.fixture(scope="module")
def unbroken(files, tmp_path_factory):
    """A finished run and what it printed."""
    workdir = tmp_path_factory.mktemp("unbroken")
    return workdir, run(files, workdir)


def test_a_run_leaves_what_it_says(unbroken):
    workdir, done = unbroken
    steps = [line["step"] for line in read_metrics(workdir) if line["kind"] == "train"]
    assert steps == list(range(1, 13))
    evaluations = [line for line in read_metrics(workdir) if line["kind"] == "evaluation"]
    assert [line["step"] for line in evaluations] == [6, 12]
    with Checkpointer(workdir) as checkpointer:
        assert checkpointer.steps() == [10, 12]  # every tenth, and the newest
    assert json.loads((workdir / "config.json").read_text())["train"]["batch_size"] == 8
    assert (workdir / "tokenizer.json").exists() and list((workdir / "tensorboard").iterdir())
    assert "encoder/layers/attention/query/kernel" in done.stderr
    assert f"{evaluations[-1]['unigram_loss']:.3f}" in done.stdout
    assert "spanbert-jax evaluate --workdir" in done.stdout


# Told at step 5, a run stops after step 6, where an evaluation is due.
@pytest.mark.parametrize("step,number,status", [
    (7, signal.SIGINT, 75), (5, signal.SIGTERM, 75), (7, signal.SIGKILL, -9)])
def test_a_stopped_run_goes_on_bit_for_bit(files, unbroken, tmp_path, step, number, status):
    assert stop_at(step, number, files, tmp_path) == status
    run(files, tmp_path)
    assert train_losses(tmp_path) == train_losses(unbroken[0])
    evaluations = [[line for line in read_metrics(workdir) if line["kind"] == "evaluation"]
                   for workdir in (tmp_path, unbroken[0])]
    assert evaluations[0] == evaluations[1]


def test_a_run_goes_on_with_another_number_of_devices(files, unbroken, tmp_path):
    run(files, tmp_path, "--config.train.duration=5 steps", "--config.optimizer.schedule=constant")
    run(files, tmp_path, "--config.optimizer.schedule=constant", "--config.mesh.fsdp=2", devices=4)
    other = tmp_path / "unbroken"
    run(files, other, "--config.optimizer.schedule=constant")
    got, expected = train_losses(tmp_path), train_losses(other)
    assert [got[step] for step in range(1, 6)] == [expected[step] for step in range(1, 6)]
    for step in range(6, 13):
        np.testing.assert_allclose(got[step], expected[step], rtol=1e-5)


def test_a_finished_run_does_nothing_more(files, unbroken):
    before = read_metrics(unbroken[0])
    done = run(files, unbroken[0])
    assert read_metrics(unbroken[0]) == before
    assert "How good" in done.stdout


def test_evaluate_agrees_with_training_and_with_any_batch_size(files, unbroken):
    figures = json.loads(run(files, unbroken[0], "--json", verb="evaluate").stdout)
    assert figures["step"] == 12
    in_flight = unbroken[0] / "checkpoints" / "13.orbax-checkpoint-tmp"
    in_flight.mkdir()
    with_all = spanbert_jax.evaluate(unbroken[0])  # eight devices here, one there
    in_flight.rmdir()  # what a running trainer is saving is still there
    for name in ("masked_loss", "boundary_loss", "unigram_loss", "masked_accuracy"):
        assert figures[name] == pytest.approx(with_all[name], rel=1e-5)
    assert figures["perplexity"] == pytest.approx(np.exp(figures["masked_loss"]))
    earlier = spanbert_jax.evaluate(unbroken[0], step=10)
    assert earlier["masked_loss"] != figures["masked_loss"] and earlier["unigram_loss"] == with_all["unigram_loss"]


def test_what_evaluate_cannot_find_is_told(files, unbroken, tmp_path):
    with pytest.raises(UserError, match="no run here"):
        spanbert_jax.evaluate(tmp_path)
    with pytest.raises(UserError, match=r"no checkpoint of step 11; there are \[10, 12\]"):
        spanbert_jax.evaluate(unbroken[0], step=11)


def test_a_checkpoint_of_another_network_is_refused(files, unbroken):
    done = run(files, unbroken[0], "--config.model.size=mini", status=2)
    last = done.stderr.strip().splitlines()[-1]
    assert "checkpoint of step 12: " in last and "use the config that the run began with" in last
    assert json.loads((unbroken[0] / "config.json").read_text())["model"]["size"] == "tiny"


def test_a_corpus_of_another_tokenizer_is_refused(files, unbroken, tmp_path):
    spanbert_jax.prepare(str(files / "texts" / "a*.txt"), tmp_path / "corpus", vocab_size=600, length=64, workers=1,
                         progress=False)
    done = run(files, unbroken[0], f"--config.data.path={tmp_path / 'corpus'}", status=2)
    assert "trained with another tokenizer" in done.stderr.strip().splitlines()[-1]


def test_annotated_masking_needs_annotations(files, tmp_path):
    done = run(files, tmp_path, "--config.masking.scheme=annotated", status=2)
    assert "prepared without annotations" in done.stderr.strip().splitlines()[-1]


def test_a_workdir_serves_one_run_at_a_time(files, tmp_path):
    with hold(tmp_path):
        assert "another run is using it" in run(files, tmp_path, status=2).stderr


def test_a_run_on_a_mesh_is_evaluated_on_the_devices_there_are(files, tmp_path):
    run(files, tmp_path, "--config.train.duration=2 steps", "--config.mesh.fsdp=2", "--config.mesh.tensor=2", devices=4)
    assert json.loads(run(files, tmp_path, "--json", verb="evaluate").stdout)["step"] == 2


def test_a_loss_that_is_not_finite_stops_and_leaves_the_checkpoints(files, tmp_path):
    run(files, tmp_path, "--config.train.duration=5 steps", "--config.optimizer.schedule=constant")
    done = run(files, tmp_path, "--config.optimizer.schedule=constant", "--config.optimizer.learning_rate=1e30",
               status=1)
    last = done.stderr.strip().splitlines()[-1]
    assert "not finite" in last and "gradient_norm" in last and "rows [" in last
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.steps() == [5]


def test_lines_after_the_step_that_a_run_goes_on_from_are_dropped(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.write(step, "train", {"loss": float(step)})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')  # a killed run
    with MetricsWriter(tmp_path, 2) as writer:
        writer.write(3, "train", {"loss": 30.0})
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [(1, 1.0), (2, 2.0), (3, 30.0)]
