"""Where the time of a run goes, over all its attempts: every moment since its first start counts once."""
import contextlib
import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, TypedDict

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import write_text
from spanbert_jax.common.json_files import read_json

GOODPUT_FILE = "goodput.json"

CATEGORIES = ("steps", "compile", "data", "checkpoint", "evaluation", "profile", "starting", "lost")
_MOST_SAVED = 100  # states: far more than a resumed run needs to find the newest valid checkpoint


@dataclasses.dataclass(frozen=True)
class TimeAtSave:
    """The time spent until a state was saved."""
    at: float  # time of the save, in seconds since the epoch
    seconds: dict[str, float]  # spent until then, by category


@dataclasses.dataclass(frozen=True)
class GoodputRecord:
    """What an attempt stores for the next one."""
    restarts: int  # attempts that continued an unfinished run
    finished: float | None  # when the run finished, in seconds since the epoch; None before
    saved: dict[int, TimeAtSave]  # time spent until each saved state, by step


class Goodput:
    """Measures what the time of a run is spent on. Each moment counts in one category, so that the categories sum up.

    An attempt is one call of `train`. The run starts with its first attempt that reached the training loop.

      steps: updates, as the loop waits for them, and logging.
      compile: compiling the step and the evaluation, or reading them from the cache.
      data: waiting for the next batch and placing it on the devices. Batches are read ahead, so more than a small share
        means that reading is too slow.
      checkpoint: saves as far as the loop waits for them.
      evaluation: evaluation, without its compilation.
      profile: starting and writing traces.
      starting: from the call of `train` to the first batch: devices, preparation of the corpus, reading a checkpoint.
      lost: from the save of a state to the start of the attempt that resumes from it: repeated work, and time in which
        nothing ran. The time after a finished run does not count when a longer run continues it.
    """

    def __init__(self, clock: Callable[[], float] | None = None):
        """Starts an attempt. Args: clock: returns seconds since the epoch and never runs backwards."""
        offset = time.time() - time.monotonic()  # changes of the system time later on do not count
        self._clock, self._store = clock or (lambda: offset + time.monotonic()), lambda record: None
        self._began = self._since = self._clock()
        self._seconds = dict.fromkeys(CATEGORIES, 0.0)
        self._category = "starting"
        self._record = GoodputRecord(0, None, {})

    def resume(self, record: GoodputRecord | None, step: int, store: Callable[[GoodputRecord], None]) -> None:
        """Adds the time of earlier attempts up to the state that this attempt resumes from.

        Args:
          record: of the earlier attempts; None if the run starts with this one.
          step: of the state; 0 for a new run.
          store: called with the record at each change from now on, so that it survives the process.
        """
        self._store = store
        saved = {at: state for at, state in record.saved.items() if at <= step} if record else {}
        restarts = 0
        before = dict.fromkeys(CATEGORIES, 0.0)
        if record and saved:
            state = saved[max(saved)]  # of an earlier step if the process died between saving and recording
            before |= state.seconds
            # The clock of another machine may be behind.
            before["lost"] += max(0.0, (self._began if record.finished is None else record.finished) - state.at)
            restarts = record.restarts + (record.finished is None)
        for category, seconds in before.items():
            self._seconds[category] += seconds
        self._record = GoodputRecord(restarts, None, saved | {step: TimeAtSave(self._began, before)})
        self._store(self._record)

    @contextlib.contextmanager
    def during(self, category: str) -> Iterator[None]:
        """Context in which time counts as `category`, except inside nested contexts."""
        before = self._switch(category)
        try:
            yield
        finally:
            self._switch(before)

    def spent(self, *categories: str) -> float:
        """Seconds spent on the given categories until now."""
        self._switch(self._category)
        return sum(self._seconds[category] for category in categories)

    def saved(self, step: int) -> None:
        """Records that the state of `step` is saved or being saved: later time is lost if the process dies.

        Call it after the call that starts the save, which need not be repeated.
        """
        self._switch(self._category)
        saved = {**self._record.saved, step: TimeAtSave(self._since, dict(self._seconds))}
        for old in sorted(saved)[1:-_MOST_SAVED]:  # keeps the first, for a restart without checkpoints
            del saved[old]
        self._record = dataclasses.replace(self._record, saved=saved)
        self._store(self._record)

    def finish(self) -> None:
        """Records that the run has finished."""
        self._switch(self._category)
        self._record = dataclasses.replace(self._record, finished=self._since)
        self._store(self._record)

    def metrics(self) -> dict[str, float]:
        """Seconds by category and in total, the share of "steps" ("goodput"), and the number of restarts."""
        total = self.spent(*CATEGORIES)
        return {"goodput": self._seconds["steps"] / total if total else 0.0, "total_seconds": total,
                **{f"{category}_seconds": self._seconds[category] for category in CATEGORIES},
                "restarts": self._record.restarts}

    def _switch(self, category: str) -> str:
        """Counts the time until now and switches to `category`. Returns the previous category."""
        now, before = self._clock(), self._category
        self._seconds[before] += now - self._since
        self._since, self._category = now, category
        return before


def write_record(workdir: pathlib.Path, record: GoodputRecord) -> None:
    """Writes a record to a workdir atomically, if it can be written."""
    with contextlib.suppress(OSError):  # checkpoints report a full disk; with an older record more time counts as lost
        write_text(workdir / GOODPUT_FILE, json.dumps(dataclasses.asdict(record)) + "\n")


class _StoredTime(TypedDict):
    at: float
    seconds: dict[str, float]


class _StoredRecord(TypedDict):
    """What `write_record` writes."""
    restarts: int
    finished: float | None
    saved: dict[str, _StoredTime]


def read_record(workdir: str | os.PathLike, log: Callable[[str], Any]) -> GoodputRecord | None:
    """The record of earlier attempts; None if there is none, or it cannot be read, which is logged."""
    path = pathlib.Path(workdir) / GOODPUT_FILE
    try:
        values = read_json(path, _StoredRecord)
        saved = {int(step): TimeAtSave(state["at"],
                                       {category: state["seconds"].get(category, 0.0) for category in CATEGORIES})
                 for step, state in values["saved"].items()}
        return GoodputRecord(values["restarts"], values["finished"], saved)
    except FileNotFoundError:
        return None
    except (UserError, ValueError) as error:  # ValueError: of a step
        log(f"{path} cannot be read ({error}): the time of this run is counted from now on.")
        return None
