"""Stopped by a signal or the time limit, a run saves what it has done and goes on from there, bit for bit."""
import os
import random
import signal
import threading

import pytest

from spanbert_jax.cluster.exit_codes import STOPPED
from tests.runs import Process, assert_same_run, evaluations, losses, run


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_stopped_at_random_moments_ends_as_if_nothing_had_happened(files, tmp_path, sweep, processes):
    moments, stops = random.Random(sweep + processes), 0
    settings = [f"--config.train.duration={16 * max(sweep, 5)} steps", "--config.checkpoint.every=1000 steps"]
    run(files, tmp_path / "unbroken", *settings, processes=processes)
    status = STOPPED
    while status == STOPPED:
        with Process(files, tmp_path / "broken", *settings, processes=processes) as process:
            process.until("loss")
            timer = threading.Timer(moments.uniform(0, 0.3), process.send, [signal.SIGTERM])
            timer.start()
            status = process.wait()
            timer.cancel()
        stops += status == STOPPED
        assert status in (0, STOPPED), process.output
    assert stops >= 2
    assert_same_run(tmp_path / "broken", tmp_path / "unbroken")


def test_one_process_told_to_stop_stops_all(files, tmp_path):
    settings = ["--config.train.duration=2000 steps", "--config.checkpoint.every=1000 steps"]
    with Process(files, tmp_path, *settings, processes=2) as process:
        process.until("loss")
        os.kill(process.children()[1], signal.SIGTERM)
        assert process.wait() == STOPPED, process.output
    steps = [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    assert steps == [str(max(losses(tmp_path)))]


# At step 20 it compiles the evaluation, at step 40 it is in the middle of it.
@pytest.mark.parametrize("step", [20, 40])
def test_an_evaluation_is_cut_short_and_made_up_for(files, tmp_path, step):
    settings = ["--config.evaluation.batch_size=1"]
    run(files, tmp_path / "unbroken", *settings)
    with Process(files, tmp_path / "broken", *settings) as process:
        process.until(f"step {step}/")
        process.send(signal.SIGTERM)
        assert process.wait() == STOPPED, process.output
    assert max(losses(tmp_path / "broken")) == step
    assert [line["step"] for line in evaluations(tmp_path / "broken")] == list(range(20, step, 20))
    run(files, tmp_path / "broken", *settings)
    assert_same_run(tmp_path / "broken", tmp_path / "unbroken")


@pytest.mark.parametrize("seconds", [0, 2])
def test_a_stop_during_compilation_is_heard(files, unbroken, tmp_path, seconds):
    with Process(files, tmp_path, cache=tmp_path / "cold") as process:
        process.until("rows a step")
        timer = threading.Timer(seconds, process.send, [signal.SIGTERM])
        timer.start()
        assert process.wait() == STOPPED, process.output
    assert "loss" not in process.output
    run(files, tmp_path)
    assert_same_run(tmp_path, unbroken)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_preparation_is_heard_and_leaves_nothing(files, tmp_path, number):
    settings = ["--config.data.path=", f"--config.data.sources=('{files.folder / 'texts'}',)",
                "--config.data.vocab_size=600", "--config.data.length=64", "--config.train.duration=2 steps"]
    with Process(files, tmp_path, *settings) as process:
        process.until("Training a vocabulary")
        process.send(number)
        assert process.wait() == STOPPED, process.output
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}
    run(files, tmp_path, *settings)


def test_the_time_limit_saves_and_stops(files, tmp_path):
    output = run(files, tmp_path, "--config.train.duration=100000 steps", "--config.checkpoint.every=0",
                 "--time-limit=15s", status=STOPPED)
    assert "time limit" in output
    steps = [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    assert steps == [str(max(losses(tmp_path)))]
