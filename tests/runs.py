"""Small runs in processes of their own, for tests that stop, kill, damage and compare them bit for bit."""
from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import pydoc_data.topics
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp

import spanbert_jax

ROOT = pathlib.Path(__file__).parents[1]

CONFIG = '''
"""A run of seconds."""
from spanbert_jax import default_config

def get_config():
    config = default_config()
    config.model.size, config.model.dtype, config.model.layers = "tiny", "float32", "scanned"
    config.model.max_positions = 64
    config.model.dropout = config.model.attention_dropout = 0.0
    config.optimizer.learning_rate, config.optimizer.warmup = 1e-3, "2 steps"
    config.optimizer.schedule = "constant"
    config.train.duration, config.train.batch_size, config.train.log_every = "60 steps", 8, 1
    config.evaluation.every, config.evaluation.batch_size = "20 steps", 8
    config.evaluation.max_rows = 200
    config.checkpoint.every, config.checkpoint.keep, config.checkpoint.keep_every = "5 steps", 2, "0"
    return config
'''

# What runs have unless told otherwise. Without them all runs are one program, whatever their length, compiled once.
USUAL = ("--config.model.dropout=0.1", "--config.model.attention_dropout=0.1", "--config.optimizer.schedule=linear")


@dataclasses.dataclass(frozen=True)
class Files:
    """What the runs of a test start from.

    Attributes:
      folder: holds config.py, texts/, corpus/ and the compiled programs, so that a restart takes seconds.
    """
    folder: pathlib.Path

    @property
    def corpus(self) -> pathlib.Path:
        return self.folder / "corpus"

    def environment(self, devices: int = 1, cache: pathlib.Path | None = None) -> dict[str, str]:
        """The variables of a process with so many simulated devices; compiled programs as in `Process`."""
        return {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices),
                # As in conftest: few of these programs run for longer than they take to compile.
                "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XDG_CACHE_HOME": str(cache or self.folder / "cache")}


def make_files(folder: pathlib.Path) -> Files:
    """A config and a corpus of the language reference that is in every Python."""
    (folder / "config.py").write_text(CONFIG)
    texts = folder / "texts"
    texts.mkdir()
    for name, text in list(pydoc_data.topics.topics.items())[:40]:
        (texts / f"{name}.txt").write_text(text, encoding="utf-8")
    spanbert_jax.prepare(str(texts), folder / "corpus", vocab_size=600, length=64, validation_fraction=0.1, workers=1,
                         progress=False)
    return Files(folder)


class Process:
    """A verb of the command line in a process of its own, or several under launch/local.py; a context manager.

    Attributes:
      lines: what it has written to standard error so far.
    """

    def __init__(self, files: Files, workdir: pathlib.Path, *overrides: str, processes: int = 1, devices: int = 1,
                 launcher: tuple[str, ...] = (), cache: pathlib.Path | None = None, verb: str = "train"):
        """Starts it.

        Args:
          overrides: further arguments, later ones winning.
          devices: simulated ones, of each process.
          cache: of compiled programs, instead of the one that all runs share.
          launcher: further arguments of launch/local.py; given or not, it is used for several processes.
        """
        config = [f"--config={files.folder / 'config.py'}", f"--config.data.path={files.corpus}"]
        argv = [sys.executable, "-m", "spanbert_jax", verb, "--workdir", str(workdir),
                *(config if verb == "train" else []), *overrides]
        if processes > 1 or launcher:
            argv = [sys.executable, str(ROOT / "launch" / "local.py"), f"--processes={processes}",
                    f"--devices={devices}", *launcher, "--", *argv]
        self._popen = subprocess.Popen(argv, env=files.environment(devices, cache), cwd=ROOT, stderr=subprocess.STDOUT,
                                       stdout=subprocess.PIPE, text=True, errors="replace")
        self.lines: list[str] = []

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *exception: object) -> None:
        self._popen.kill()
        self._popen.communicate()

    def until(self, says: str) -> None:
        """Reads on to a line that contains `says`."""
        for line in self._read():
            if says in line:
                return
        raise AssertionError(f"ended without {says!r}:\n{self.output}")

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self._popen.send_signal(number)

    def wait(self) -> int:
        """Reads to the end and returns the exit status."""
        for _ in self._read():
            pass
        return self._popen.wait()

    def children(self) -> list[int]:
        """The processes that a launcher has started, by number."""
        listed = pathlib.Path(f"/proc/{self._popen.pid}/task/{self._popen.pid}/children").read_text().split()
        return sorted(map(int, listed))

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def _read(self) -> Iterator[str]:
        for line in self._popen.stdout:
            self.lines.append(line)
            yield line


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(*arguments, status: int = 0, **options) -> str:
    """Runs to the end and returns the output."""
    with Process(*arguments, **options) as process:
        got = process.wait()
    assert got == status, f"exit status {got}:\n{process.output}"
    return process.output


def losses(workdir: pathlib.Path) -> dict[int, float]:
    """The training loss of each step."""
    return {line["step"]: line["loss"] for line in _metrics(workdir) if line["kind"] == "train"}


def evaluations(workdir: pathlib.Path) -> list[dict]:
    """The lines of evaluations, in order."""
    return [line for line in _metrics(workdir) if line["kind"] == "evaluation"]


def final_state(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Every array of the newest checkpoint, read by Orbax alone."""
    steps = [int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
    path = (workdir / "checkpoints" / str(max(steps)) / "state").resolve()
    with ocp.PyTreeCheckpointer() as reader:
        saved = reader.metadata(path).item_metadata.tree
        tree = reader.restore(path, args=ocp.args.PyTreeRestore(
            restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)))
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same_run(workdir: pathlib.Path, unbroken: pathlib.Path) -> None:
    """Asserts that two finished runs are equal, bit for bit: every loss, every evaluation, the whole last state."""
    assert losses(workdir) == losses(unbroken)
    assert evaluations(workdir) == evaluations(unbroken)
    state, expected = final_state(workdir), final_state(unbroken)
    assert state.keys() == expected.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name, strict=True)


def _metrics(workdir: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
