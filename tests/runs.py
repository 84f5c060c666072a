"""Small training runs, for tests that stop, kill or damage a run and compare the results exactly."""
from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import io
import json
import os
import pathlib
import pydoc_data.topics
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

import spanbert_jax
from spanbert_jax.commands.main import main

ROOT = pathlib.Path(__file__).parents[1]

CONFIG = '''
"""A run that takes seconds."""
from spanbert_jax import default_config

def get_config():
    config = default_config()
    config.model.size, config.compute.dtype, config.compute.layers = "tiny", "float32", "scanned"
    config.model.width, config.model.num_heads, config.model.feed_forward = 64, 2, 128
    config.model.max_positions = 64
    config.model.dropout = config.model.attention_dropout = 0.0
    config.optimizer.learning_rate, config.schedule.warmup = 1e-3, "2 steps"
    config.schedule.name = "constant"
    config.train.duration, config.train.batch_size, config.train.log_every = "20 steps", 8, 1
    config.evaluation.every, config.evaluation.batch_size = "10 steps", 8
    config.evaluation.max_rows = 100
    config.checkpoint.every, config.checkpoint.keep, config.checkpoint.keep_every = "5 steps", 1, "10 steps"
    return config
'''

# Settings that most real runs use. Runs without them share one compiled program, whatever their number of steps.
USUAL = ("--config.model.dropout=0.1", "--config.model.attention_dropout=0.1", "--config.schedule.name=linear")


@dataclasses.dataclass(frozen=True)
class Files:
    """The config and the corpus of test runs.

    Attributes:
      folder: contains config.py, texts/, corpus/ and cache/ (compiled programs, so that a restart takes seconds).
    """
    folder: pathlib.Path

    @property
    def corpus(self) -> pathlib.Path:
        return self.folder / "corpus"

    def arguments(self, command: str, workdir: pathlib.Path, *overrides: str) -> list[str]:
        """The command line of a command on a workdir; `train` gets the config and the corpus."""
        config = [f"--config={self.folder / 'config.py'}", f"--config.data.path={self.corpus}"]
        return [command, "--workdir", str(workdir), *(config if command == "train" else []), *overrides]

    def environment(self, devices: int = 1, cache: pathlib.Path | None = None) -> dict[str, str]:
        """Environment variables of a process with that many simulated devices. `cache` replaces folder/cache."""
        return {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices),
                # As in conftest.py: few of these programs run longer than they take to compile.
                "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "XDG_CACHE_HOME": str(cache or self.folder / "cache")}


def make_files(folder: pathlib.Path) -> Files:
    """Writes the config, and a corpus of Python's language reference, which every Python installation contains."""
    (folder / "config.py").write_text(CONFIG)
    texts = folder / "texts"
    texts.mkdir()
    for name, text in list(pydoc_data.topics.topics.items())[:40]:
        (texts / f"{name}.txt").write_text(text, encoding="utf-8")
    spanbert_jax.prepare(str(texts), folder / "corpus", vocab_size=600, length=64, validation_fraction=0.1, workers=1,
                         progress=False)
    return Files(folder)


def make_once(folder: pathlib.Path, make: Callable[[pathlib.Path], object]) -> pathlib.Path:
    """Returns the folder, which `make` fills unless another worker of this test session already has."""
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released on close
        if not folder.exists():
            folder.mkdir()
            try:
                make(folder)
            except BaseException:
                shutil.rmtree(folder)
                raise
    return folder


@contextlib.contextmanager
def visible_devices(count: int) -> Iterator[None]:
    """JAX lists only that many of this process's devices. Where devices are not the point of a test, a step on one of
    them takes half the time of a step on eight."""
    shown = jax.devices()[0].client.devices()[:count]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("devices", "local_devices"):
            patch.setattr(jax, name, lambda *args, **keywords: shown)
        for name in ("device_count", "local_device_count"):
            patch.setattr(jax, name, lambda *args: count)
        yield


class Process:
    """A context manager: a command of spanbert-jax in a child process, or in several under launch/local.py.

    Attributes:
      lines: the lines written to standard output and error so far.
    """

    def __init__(self, files: Files, workdir: pathlib.Path, *overrides: str, processes: int = 1, devices: int = 1,
                 launcher: tuple[str, ...] = (), cache: pathlib.Path | None = None, command: str = "train"):
        """Starts the command.

        Args:
          overrides: further arguments; later ones take precedence.
          processes: number of processes; several are started by launch/local.py.
          devices: number of simulated devices of each process.
          launcher: further arguments of launch/local.py, which then starts a single process too.
          cache: folder of compiled programs; None for the one that all runs share.
          command: the command of spanbert-jax.
        """
        argv = [sys.executable, "-m", "spanbert_jax", *files.arguments(command, workdir, *overrides)]
        if processes > 1 or launcher:
            argv = [sys.executable, str(ROOT / "launch" / "local.py"), f"--processes={processes}",
                    f"--devices={devices}", *launcher, "--", *argv]
        self._popen = subprocess.Popen(argv, env=files.environment(devices, cache), cwd=ROOT, stderr=subprocess.STDOUT,
                                       stdout=subprocess.PIPE, text=True, errors="replace")
        self.lines: list[str] = []

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exception: object) -> None:
        self._popen.kill()
        self._popen.communicate()

    def until(self, text: str) -> None:
        """Reads the output up to a line that contains `text`."""
        for line in self._read():
            if text in line:
                return
        raise AssertionError(f"ended without {text!r}:\n{self.output}")

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self._popen.send_signal(number)

    def wait(self) -> int:
        """Reads the output to its end and returns the exit status."""
        for _ in self._read():
            pass
        return self._popen.wait()

    def leave(self) -> int:
        """Closes the output without reading its rest, and returns the exit status."""
        self._popen.stdout.close()
        self._popen.stdout = None
        return self._popen.wait()

    def children(self) -> list[int]:
        """The process ids of the launcher's children, sorted."""
        listed = pathlib.Path(f"/proc/{self._popen.pid}/task/{self._popen.pid}/children").read_text().split()
        return sorted(map(int, listed))

    @property
    def output(self) -> str:
        """All output so far."""
        return "".join(self.lines)

    def _read(self) -> Iterator[str]:
        for line in self._popen.stdout:
            self.lines.append(line)
            yield line


def free_port() -> int:
    """A port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(*arguments, status: int = 0, **options) -> str:
    """Runs a `Process` to its end, asserts its exit status and returns its output."""
    with Process(*arguments, **options) as process:
        actual = process.wait()
    assert actual == status, f"exit status {actual}:\n{process.output}"
    return process.output


def run_here(files: Files, workdir: pathlib.Path, *overrides: str, status: int = 0, devices: int = 1,
             command: str = "train") -> str:
    """As `run`, in this process and on some of its devices.

    It takes half the time, because imports and compiled programs are there. Not for runs that get a signal.
    """
    output = io.StringIO()
    with visible_devices(devices), contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        actual = main(files.arguments(command, workdir, *overrides))
    assert actual == status, f"exit status {actual}:\n{output.getvalue()}"
    return output.getvalue()


def losses(workdir: pathlib.Path) -> dict[int, float]:
    """The training loss of each step, from the metrics file."""
    return {line["step"]: line["loss"] for line in _metrics(workdir) if line["kind"] == "train"}


def evaluations(workdir: pathlib.Path) -> list[dict]:
    """The evaluation lines of the metrics file, in order."""
    return [line for line in _metrics(workdir) if line["kind"] == "evaluation"]


def final_state(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Every array of the newest checkpoint, read with Orbax alone."""
    steps = [int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
    path = (workdir / "checkpoints" / str(max(steps)) / "state").resolve()
    with ocp.PyTreeCheckpointer() as reader:
        saved = reader.metadata(path).item_metadata.tree
        tree = reader.restore(path, args=ocp.args.PyTreeRestore(
            restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)))
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same_run(workdir: pathlib.Path, unbroken: pathlib.Path) -> None:
    """Asserts that two finished runs have exactly the same losses, evaluations and final state."""
    assert losses(workdir) == losses(unbroken)
    assert evaluations(workdir) == evaluations(unbroken)
    state, expected = final_state(workdir), final_state(unbroken)
    assert state.keys() == expected.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name, strict=True)


def _metrics(workdir: pathlib.Path) -> list[dict]:
    """The lines of metrics.jsonl, without the time at which they were written."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name != "time"} for line in lines]
