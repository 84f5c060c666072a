"""A run stopped by a signal or the time limit saves, and resumes bit for bit."""
import itertools
import os
import random
import signal
import threading

from spanbert_jax.cluster.exit_codes import STOPPED
from tests.runs import Process, assert_same_run, evaluations, losses, run, run_here


def test_a_run_stopped_at_any_moment_ends_as_without_interruption(files, unbroken, tmp_path, sweep):
    moments, signals = random.Random(sweep), itertools.cycle((signal.SIGTERM, signal.SIGHUP))
    for number in itertools.islice(signals, max(sweep, 1)):
        with Process(files, tmp_path / "0") as process:
            # After the start of Python: during imports, the checkpoint, compilation, or the first steps.
            timer = threading.Timer(moments.uniform(0.4, 4), process.send, [number])
            timer.start()
            assert process.wait() == STOPPED, process.output
    runs, stops, wanted = 0, 0, max(sweep, 1)
    while stops < wanted:
        workdir, status, runs = tmp_path / str(runs), STOPPED, runs + 1
        while status == STOPPED:
            with Process(files, workdir, "--config.checkpoint.every=0") as process:
                process.until("loss")
                timer = threading.Timer(moments.uniform(0, 0.2), process.send, [next(signals)])
                if stops < wanted:
                    timer.start()
                status = process.wait()
                timer.cancel()
            stops += status == STOPPED
            assert status in (0, STOPPED), process.output
        assert_same_run(workdir, unbroken)
        assert not list(workdir.glob("checkpoints/*unsound*"))


def test_two_processes_stop_together_and_start_again_if_one_is_killed(files, unbroken_pair, tmp_path, sweep):
    moments, signals = random.Random(sweep), itertools.cycle((signal.SIGHUP, signal.SIGTERM))
    for attempt in range(max(1, sweep // 2)):
        workdir, number = tmp_path / str(attempt), next(signals)
        for signal_all in (False, True)[:1 + bool(sweep)]:  # test_local shows that a launcher passes signals on
            with Process(files, workdir, processes=2) as process:
                process.until("loss")
                children = process.children()
                tell = (process.send, [number]) if signal_all else (os.kill, [children[1], number])
                threading.Timer(moments.uniform(0, 0.4), *tell).start()
                assert process.wait() == STOPPED, process.output
            steps = [int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
            assert max(steps) == max(losses(workdir)) < 20
        # A launcher that restarts a run may do so after a process was killed, but not after a stop.
        with Process(files, workdir, processes=2, launcher=("--restarts=1",)) as process:
            process.until("loss")
            children = process.children()
            os.kill(children[1], signal.SIGKILL)
            process.until("restart 1 of 1")
            assert not any(os.path.exists(f"/proc/{child}") for child in children)
            assert process.wait() == 0, process.output
        assert_same_run(workdir, unbroken_pair)


def test_a_stop_interrupts_preparation_compilation_and_evaluations(files, unbroken, tmp_path):
    workdir = tmp_path / "run"
    settings = ["--config.data.path=", f"--config.data.sources=('{files.folder / 'texts'}',)",
                "--config.data.vocab_size=600", "--config.data.length=64", "--config.data.validation_fraction=0.1"]
    with Process(files, workdir, *settings) as process:
        process.until("Training a vocabulary")
        process.send(signal.SIGTERM)
        assert process.wait() == STOPPED, process.output
    assert {path.name for path in workdir.iterdir()} <= {".lock"}
    with Process(files, workdir, *settings, cache=tmp_path / "cold") as process:
        process.until("rows a step")
        timer = threading.Timer(2, process.send, [signal.SIGTERM])
        timer.start()
        assert process.wait() == STOPPED, process.output
    assert "loss" not in process.output
    with Process(files, workdir, *settings) as process:
        process.until("step 10/")  # then it compiles its first evaluation
        process.send(signal.SIGTERM)
        assert process.wait() == STOPPED, process.output
    assert max(losses(workdir)) == 10 and not evaluations(workdir)
    run_here(files, workdir, *settings)  # evaluates step 10 first
    assert_same_run(workdir, unbroken)


def test_the_time_limit_saves_and_stops(files, tmp_path):
    seconds = 6
    while True:
        workdir = tmp_path / str(seconds)
        output = run(files, workdir, "--config.train.duration=100000 steps", "--config.checkpoint.every=0",
                     f"--time-limit={seconds}s", status=STOPPED)
        assert "time limit" in output
        if losses(workdir):
            break
        seconds *= 2  # a slow machine has not reached its first step
    steps = [path.name for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
    assert steps == [str(max(losses(workdir)))]
