"""Where a run's figures go: JSON lines and TensorBoard files in the workdir."""
from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import tensorboardX

from spanbert_jax.errors import UserError

METRICS_FILE = "metrics.jsonl"


class MetricsWriter:
    """Writes figures by step; a context manager.

    A run that goes on from a checkpoint drops what was written after that step, so that the files read as one unbroken
    run.
    """

    def __init__(self, workdir: str | pathlib.Path, first_step: int = 0):
        """Opens the files of a run that goes on from `first_step`."""
        self._path = pathlib.Path(workdir) / METRICS_FILE
        _drop_after(self._path, first_step)
        self._lines = open(self._path, "a", encoding="utf-8")
        self._board = tensorboardX.SummaryWriter(
            str(pathlib.Path(workdir) / "tensorboard"), purge_step=first_step + 1)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *exception: Any) -> None:
        self._lines.close()
        self._board.close()

    def write(self, step: int, kind: str, figures: Mapping[str, Any]) -> None:
        """Writes figures after `step` updates; `kind` is "train" or "evaluation". Lists go to the JSON lines alone."""
        self._lines.write(json.dumps({"step": step, "kind": kind, **figures}) + "\n")
        self._lines.flush()
        for name, value in figures.items():
            if isinstance(value, (int, float)):
                self._board.add_scalar(f"{kind}/{name}", value, step)


def read_metrics(workdir: str | pathlib.Path) -> list[dict[str, Any]]:
    """The lines that a run has written, in order."""
    lines = (pathlib.Path(workdir) / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _drop_after(path: pathlib.Path, step: int) -> None:
    if path.exists():
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except json.JSONDecodeError:  # the end of a line that a killed run was writing
                continue
        write_text(path, "".join(kept))


@contextlib.contextmanager
def hold(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps other runs out of a workdir as long as this process lives.

    Raises:
      UserError: when another run holds it.
    """
    with open(workdir / ".lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{workdir}: another run is using it; wait for it, or give another workdir") from None
        yield


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file so that it is never seen half-written."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
