"""metrics.jsonl: one JSON object a line, which a resumed run reads back."""
import contextlib
import json
import pathlib
import time
from typing import Any, NotRequired, TypedDict

from spanbert_jax.common.errors import UserError
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
        try:
            kept = [parsed for parsed in _parse(path.read_bytes()) if parsed[1]["step"] <= first_step]
        except FileNotFoundError:
            kept = []
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); move it out of the way") from None
        self.evaluations: dict[int, Metrics] = {  # written so far, by step
            metrics["step"]: metrics for _, metrics in kept if metrics.get("kind") == "evaluation"}
        self._file = RecordFile(path, [line for line, _ in kept])
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


def read_metrics(workdir: str | pathlib.Path) -> list[dict[str, Any]]:
    """The metrics of a run in the order in which they were written, without damaged lines."""
    return [metrics for _, metrics in _parse((pathlib.Path(workdir) / METRICS_FILE).read_bytes())]


def _parse(data: bytes) -> list[tuple[bytes, dict[str, Any]]]:
    """The valid lines of metrics.jsonl, as bytes and as metrics."""
    found = []
    for line in data.split(b"\n"):
        try:
            found.append((line + b"\n", {**parse_json(line, _Line)}))
        except JsonError:  # damaged by a crash
            continue
    return found
