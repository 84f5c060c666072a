"""Where the time of a run goes: every moment since its first start counts once, over all its attempts."""
from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from spanbert_jax.common.files import write_text

GOODPUT_FILE = "goodput.json"

CATEGORIES = ("steps", "compile", "data", "checkpoint", "evaluation", "profile", "starting", "lost")

# Far more than are needed to go on from the newest checkpoint that is sound.
_MOST_SAVED = 100


@dataclasses.dataclass(frozen=True)
class Saved:
    """What had been spent when a state was saved.

    Attributes:
      at: seconds since the epoch.
      seconds: until then, by category.
    """
    at: float
    seconds: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Record:
    """What an attempt leaves for the next one.

    Attributes:
      restarts: attempts that went on where an earlier one had not finished.
      finished: when the run was done, in seconds since the epoch; None before.
      saved: by step.
    """
    restarts: int
    finished: float | None
    saved: dict[int, Saved]


def steady_clock() -> Callable[[], float]:
    """A clock of seconds since the epoch that goes on evenly although the machine's is set meanwhile."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


class Account:
    """What the time of a run is spent on, by category. Each moment counts in one alone, so that they sum up.

    An attempt is one call of `train`. The run's first start is that of its first attempt that came as far as steps.

      steps: updates, as the loop waits for them, with what it does in between: copying a batch, logging.
      compile: making programs of the step and of the evaluation, or reading them from the cache.
      data: waiting for the next batch, which is read ahead: anything here says that reading is too slow.
      checkpoint: saves as far as they hold up the loop, and waiting for the last one.
      evaluation: the rows held out, without compilation.
      profile: starting traces and writing them.
      starting: from the call of `train` to the first batch: devices, the corpus, which may be prepared then, reading a
        checkpoint.
      lost: from the moment that a state was saved to the start of the attempt that goes on from it, which is both the
        work that has to be done again and the time in which nothing ran. The time after a finished run is no part of
        this, nor of the total, when a longer run is made of it.
    """

    def __init__(self, clock: Callable[[], float] | None = None):
        """Starts with an attempt. Args: clock: gives seconds since the epoch, never fewer than before."""
        self._clock, self._keep = clock or steady_clock(), lambda record: None
        self._began = self._since = self._clock()
        self._seconds = dict.fromkeys(CATEGORIES, 0.0)
        self._category = "starting"
        self._record = Record(0, None, {})

    def resume(self, record: Record | None, step: int, keep: Callable[[Record], None]) -> None:
        """Goes on where earlier attempts were when they saved the state of `step`, 0 being the state of a new run.

        Args:
          record: what they have left; None for none, and then the run has begun with this attempt.
          step: that this attempt goes on from.
          keep: is given the record whenever it changes from now on, so that it is there whenever the process dies.
        """
        self._keep = keep
        saved = {at: state for at, state in record.saved.items() if at <= step} if record else {}
        restarts = 0
        before = dict.fromkeys(CATEGORIES, 0.0)
        if saved:
            state = saved[max(saved)]  # of an earlier step only if the process died before it wrote that of this one
            before |= state.seconds
            # Another machine's clock may be behind.
            before["lost"] += max(0.0, (self._began if record.finished is None else record.finished) - state.at)
            restarts = record.restarts + (record.finished is None)
        for category, seconds in before.items():
            self._seconds[category] += seconds
        self._record = Record(restarts, None, saved | {step: Saved(self._began, before)})
        self._keep(self._record)

    @contextlib.contextmanager
    def during(self, category: str) -> Iterator[None]:
        """Counts what is done inside as `category`, but for what is counted otherwise in there."""
        before = self._switch(category)
        try:
            yield
        finally:
            self._switch(before)

    def spent(self, *categories: str) -> float:
        """Seconds spent on some categories until now."""
        self._switch(self._category)
        return sum(self._seconds[category] for category in categories)

    def saved(self, step: int) -> None:
        """Notes that the state of `step` is saved, or being saved: what is spent from now on is lost with the process.

        After the call that began to save it, for what that has taken is not done again.
        """
        self._switch(self._category)
        saved = {**self._record.saved, step: Saved(self._since, dict(self._seconds))}
        for old in sorted(saved)[1:-_MOST_SAVED]:  # the first is where a run begins anew
            del saved[old]
        self._record = dataclasses.replace(self._record, saved=saved)
        self._keep(self._record)

    def finish(self) -> None:
        """Notes that all is done."""
        self._switch(self._category)
        self._record = dataclasses.replace(self._record, finished=self._since)
        self._keep(self._record)

    def figures(self) -> dict[str, float]:
        """Seconds by category and in total, the share of the steps in it ("goodput") and the number of restarts."""
        total = self.spent(*CATEGORIES)
        return {"goodput": self._seconds["steps"] / total if total else 0.0, "total_seconds": total,
                **{f"{category}_seconds": self._seconds[category] for category in CATEGORIES},
                "restarts": self._record.restarts}

    def _switch(self, category: str) -> str:
        """Books the time until now, and what comes on `category`. Returns what has been going on."""
        now, before = self._clock(), self._category
        self._seconds[before] += now - self._since
        self._since, self._category = now, category
        return before


def write_record(workdir: pathlib.Path, record: Record) -> None:
    """Leaves a record in a workdir, never half-written.

    A disk that does not take it is told of by the metrics and the checkpoints. An older record only counts more as
    lost.
    """
    with contextlib.suppress(OSError):
        write_text(workdir / GOODPUT_FILE, json.dumps(dataclasses.asdict(record)) + "\n")


def read_record(workdir: str | os.PathLike, say: Callable[[str], Any]) -> Record | None:
    """The record that a run has left; None if there is none. One that cannot be read is told of."""
    path = pathlib.Path(workdir) / GOODPUT_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        saved = {int(step): Saved(float(state["at"]),
                                  {category: float(state["seconds"].get(category, 0)) for category in CATEGORIES})
                 for step, state in values["saved"].items()}
        finished = values["finished"]
        return Record(int(values["restarts"]), None if finished is None else float(finished), saved)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        say(f"{path} cannot be read: the time of this run is counted from now on.")
        return None
