"""Where a run's figures go: JSON lines and TensorBoard files in the workdir, whatever befalls the disk."""
from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from spanbert_jax.cluster.agreement import is_process_zero
from spanbert_jax.common.errors import UserError


@contextlib.contextmanager
def _without_torch():
    """Hides torch. tensorboardX imports it wherever it is, which takes as long as all that a run imports together."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]


with _without_torch():
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import masked_crc32c

METRICS_FILE, BOARD_FOLDER = "metrics.jsonl", "tensorboard"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class MetricsWriter:
    """Writes figures by step; a context manager. Only the first process of a run writes.

    A run that goes on from a checkpoint drops what was written after that step, so that the files read as one unbroken
    run. What a full disk or a vanished folder does not take is kept, and written, in order, at the next chance.
    """

    def __init__(self, workdir: str | pathlib.Path, first_step: int = 0, say: Callable[[str], None] = _say):
        """Opens the files of a run that goes on from `first_step`.

        Args:
          workdir: exists.
          first_step: updates done before.
          say: told once when the files cannot be written, and once when they can again.

        Raises:
          UserError: metrics.jsonl is there but no file that can be read, or tensorboard no directory.
        """
        self._say, self._failing = say, False
        self._workdir = pathlib.Path(workdir)
        self._evaluated: dict[int, Mapping[str, Any]] = {}
        self._lines: _GrowingFile | None = None
        if is_process_zero():
            kept = _lines_up_to(self._workdir / METRICS_FILE, first_step)
            self._evaluated = {figures["step"]: figures for _, figures in kept if figures.get("kind") == "evaluation"}
            self._lines = _GrowingFile(self._workdir / METRICS_FILE, [line for line, _ in kept])
            self._board = _GrowingFile(_board_file(self._workdir), [], _board_start(first_step + 1), make_folder=True)
            self._flush()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *exception: Any) -> None:
        self._flush()
        if self._failing:
            with contextlib.suppress(OSError):
                self._say(f"METRICS LOST: {self._workdir} did not take them until the end")

    def write(self, step: int, kind: str, figures: Mapping[str, Any]) -> None:
        """Writes figures after `step` updates; `kind` is "train", "evaluation" or "goodput". Lists go to the JSON
        lines alone.
        """
        if self._lines is None:
            return
        if kind == "evaluation":
            self._evaluated[step] = figures
        self._lines.append(json.dumps({"step": step, "kind": kind, **figures}).encode() + b"\n")
        values = [Summary.Value(tag=f"{kind}/{name}", simple_value=value) for name, value in figures.items()
                  if isinstance(value, (int, float))]
        self._board.append(_record(Event(wall_time=time.time(), step=step, summary=Summary(value=values))))
        self._flush()

    def evaluated(self, step: int) -> bool:
        """Whether the figures of an evaluation after `step` updates have been written. Only the first process knows."""
        return step in self._evaluated

    def bests(self, metric: str) -> list[tuple[int, float]]:
        """The steps whose evaluation had a higher figure of a name than all before, and the figure. Only the first
        process knows."""
        found: list[tuple[int, float]] = []
        for step, figures in sorted(self._evaluated.items()):
            value = figures.get(metric)
            if isinstance(value, (int, float)) and (not found or value > found[-1][1]):
                found.append((step, value))
        return found

    def _flush(self) -> None:
        if self._lines is None:
            return
        error = self._lines.flush() or self._board.flush()
        if bool(error) == self._failing:
            return
        self._failing = bool(error)
        with contextlib.suppress(OSError):  # what is said may go to the same disk
            if error:
                self._say(f"METRICS CANNOT BE WRITTEN to {self._workdir} ({error.strerror}): training goes on, and "
                          "they are kept until they can")
            else:
                self._say(f"Metrics are written to {self._workdir} again, those kept meanwhile too.")


def read_metrics(workdir: str | pathlib.Path) -> list[dict[str, Any]]:
    """The lines that a run has written, in order, without damaged ones."""
    return [figures for _, figures in _parse((pathlib.Path(workdir) / METRICS_FILE).read_bytes())]


class _GrowingFile:
    """A file of whole records. It is opened for each flush: a folder may vanish and come back."""

    def __init__(self, path: pathlib.Path, records: list[bytes], preamble: bytes = b"", make_folder: bool = False):
        """Args: records: what it holds or is to hold at first; preamble: what it begins with wherever it is made."""
        self._path, self._preamble, self._make_folder = path, preamble, make_folder
        self._end, self._pending = 0, list(records)
        with contextlib.suppress(OSError):
            there = path.read_bytes()
            while self._pending and there.startswith(self._pending[0], self._end):
                self._end += len(self._pending.pop(0))

    def append(self, record: bytes) -> None:
        """Takes a record for the next flush."""
        self._pending.append(record)

    def flush(self) -> OSError | None:
        """Writes what is pending. What goes wrong is returned, and then none of it is in the file."""
        try:
            if self._make_folder:
                self._path.parent.mkdir(exist_ok=True)
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                end = min(self._end, os.fstat(file).st_size)
                data = b"".join([self._preamble] * (end == 0) + self._pending)
                os.ftruncate(file, end)  # to where the last whole record ends
                try:
                    _write_at(file, data, end)
                except OSError:
                    os.ftruncate(file, end)
                    raise
            finally:
                os.close(file)  # where a network's file system tells of what it could not write
        except OSError as error:
            return error
        self._end = end + len(data)
        self._pending.clear()
        return None


def _write_at(file: int, data: bytes, at: int) -> None:
    while data:
        written = os.pwrite(file, data, at)
        data, at = data[written:], at + written


def _parse(data: bytes) -> list[tuple[bytes, dict[str, Any]]]:
    """The sound lines of metrics.jsonl, as they stand there and as figures."""
    found = []
    for line in data.split(b"\n"):
        try:
            figures = json.loads(line)
            if isinstance(figures["step"], int):
                found.append((line + b"\n", figures))
        except (ValueError, TypeError, KeyError, RecursionError):  # what a crash has left
            continue
    return found


def _lines_up_to(path: pathlib.Path, step: int) -> list[tuple[bytes, dict[str, Any]]]:
    try:
        return [(line, figures) for line, figures in _parse(path.read_bytes()) if figures["step"] <= step]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); move it out of the way") from None


def _board_file(workdir: pathlib.Path) -> pathlib.Path:
    folder = workdir / BOARD_FOLDER
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file where a directory belongs; move it out of the way")
    # TensorBoard reads what has such names in the order of the names.
    return folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"


def _board_start(purged: int) -> bytes:
    """What an event file begins with: its version, and that earlier figures from a step on do not count."""
    version = "brain.Event:2"
    return b"".join(map(_record, [
        Event(wall_time=time.time(), file_version=version),
        Event(wall_time=time.time(), step=purged, session_log=SessionLog(status=SessionLog.START))]))


def _record(event: Event) -> bytes:
    """An event as it stands in the file: size, checksum of the size, event, checksum of the event.

    tensorboardX's own writers buffer parts of records, and after a failed write neither what is in the file nor what is
    in the buffer is known; its SummaryWriter hangs once its thread has died of one.
    """
    data = event.SerializeToString()
    size = struct.pack("<Q", len(data))
    return b"".join([size, struct.pack("<I", masked_crc32c(size)), data, struct.pack("<I", masked_crc32c(data))])
