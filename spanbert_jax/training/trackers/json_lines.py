"""metrics.jsonl: one JSON object a line, which a resumed run reads back."""
import contextlib
import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any, NotRequired, TypedDict

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import open_regular
from spanbert_jax.common.json_files import JsonError, parse_json
from spanbert_jax.training.trackers.record_file import Metrics, RecordFile

METRICS_FILE = "metrics.jsonl"


class _Line(TypedDict):
    """What every line has, besides metrics of its kind."""
    step: int
    kind: str
    loss: NotRequired[float]


class JsonLines:
    """Writes WORKDIR/metrics.jsonl, so that the attempts of a run read as one run without interruption."""

    def __init__(self, workdir: pathlib.Path, first_step: int = 0):
        """Drops damaged lines and those after `first_step`. Raises UserError if the file cannot be read."""
        path = workdir / METRICS_FILE
        if path.is_symlink():
            raise UserError(f"{path}: is a link, which is not followed; move it out of the way")
        self.evaluations: dict[int, Metrics] = {}  # written so far, by step
        kept, moved = 0, list[bytes]()  # bytes at the start of the file that stay there, and lines that follow them
        try:
            for place, line, metrics in _read(path):
                if metrics["step"] > first_step:
                    continue
                if metrics.get("kind") == "evaluation":
                    self.evaluations[metrics["step"]] = metrics
                if place == kept and line.endswith(b"\n"):
                    kept += len(line)
                else:
                    moved.append(line.rstrip(b"\n") + b"\n")
        except FileNotFoundError:
            pass
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); move it out of the way") from None
        self._file = RecordFile(path, moved, kept)
        with contextlib.suppress(OSError):  # the first `write` tries again and reports it
            self._file.flush()

    def write(self, step: int, kind: str, metrics: Metrics) -> None:
        """Appends a line, with the time in seconds since the epoch. Raises OSError if it cannot be written yet."""
        if kind == "evaluation":
            self.evaluations[step] = metrics
        line = json.dumps({"step": step, "kind": kind, "time": round(time.time(), 3), **metrics})
        self._file.append(line.encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Writes pending lines; raises OSError if they cannot be written."""
        self._file.flush()


def read_metrics(workdir: str | pathlib.Path) -> Iterator[dict[str, Any]]:
    """Yields the metrics of a run in the order in which they were written, without damaged lines."""
    return (metrics for _, _, metrics in _read(pathlib.Path(workdir) / METRICS_FILE))


def _read(path: pathlib.Path) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """Yields the place in the file, the bytes and the metrics of each valid line; a run may have millions."""
    place = 0
    with open_regular(path) as file:
        for line in file:
            with contextlib.suppress(JsonError):  # damaged by a crash
                yield place, line, {**parse_json(line, _Line)}
            place += len(line)
