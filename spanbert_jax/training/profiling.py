"""Traces of chosen updates, for TensorBoard and for Perfetto."""
from __future__ import annotations

import contextlib
import pathlib
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from spanbert_jax.cluster.agreement import broadcast_from_zero
from spanbert_jax.common.errors import UserError
from spanbert_jax.training.goodput import Account
from spanbert_jax.training.tracking import BOARD_FOLDER

# In a row: a trace is held in memory until it is written, and a viewer shows the first million events.
MOST_STEPS = 100


def parse_steps(text: str) -> tuple[range, ...]:
    """The updates that `config.profile` chooses, ascending, those that follow each other as one range.

    Args:
      text: updates, counted from 1 as the lines of the run count them, and ranges with both ends: "100-104,2000".
        Empty for none.

    Raises:
      UserError: it is written otherwise, or asks for more than MOST_STEPS in a row.
    """
    chosen: list[range] = []
    for steps in sorted((_range(text, part) for part in text.split(",") if text), key=lambda steps: steps.start):
        if chosen and steps.start <= chosen[-1].stop:
            chosen[-1] = range(chosen[-1].start, max(chosen[-1].stop, steps.stop))
        else:
            chosen.append(steps)
    if any(steps.stop - steps.start > MOST_STEPS for steps in chosen):
        raise UserError(f"config.profile={text!r}: at most {MOST_STEPS} steps in a row, for a trace is held in memory")
    return tuple(chosen)


def _range(text: str, part: str) -> range:
    match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", part)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last:
        raise UserError(f"config.profile={text!r}: {part!r} is neither a step, counted from 1, nor a range of them; "
                        "write them as in '100-104,2000'")
    return range(first, last + 1)


class Profiler:
    """Traces the chosen updates of a loop; a context manager, which ends a trace that is still running.

    A trace lies in WORKDIR/tensorboard/plugins/profile/NAME, in two files for each process of the run, named by its
    host and number: HOST_0.xplane.pb for TensorBoard, HOST_0.perfetto_trace.json.gz for Perfetto. In it every update is
    an event "train" with its `step_num`. What goes wrong is told once, and then nothing more is traced.
    """

    def __init__(self, text: str, workdir: pathlib.Path, steps: range, account: Account, say: Callable[[str], None]):
        """Traces nothing yet. Every process of a run must make one.

        Args:
          text: `config.profile`.
          steps: the updates to come.
          account: is charged with what starting and writing takes.
          say: is told where a trace lies, or why there is none.
        """
        self._chosen, self._account, self._say = parse_steps(text), account, say
        self._workdir, self._temporary = workdir, workdir / f".profile.{jax.process_index()}"
        self._first = self._last = 0  # of the trace that is running, if one is
        self._failed = False
        if self._chosen:
            # One name on all processes, and a new one for each attempt: viewers keep what they have made of a trace.
            self._began = broadcast_from_zero(time.strftime("%Y%m%d-%H%M%S"))
            if not any(part.start < steps.stop and steps.start < part.stop for part in self._chosen):
                say(f"config.profile={text!r}: none of these steps is to come; nothing is traced.")

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stop()

    def turns(self, step: int) -> bool:
        """Whether a trace begins or ends after `step`, which must be done then, so that all of it is in, or none.

        The same on all processes, whether or not tracing has failed on one.
        """
        return self._is_chosen(step) != self._is_chosen(step + 1)

    def stop_after(self, step: int) -> None:
        """Ends and writes the trace that is running, if the update after `step` is not to be in it."""
        if not self._is_chosen(step + 1):
            self._stop()

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Where an update is made; begins a trace with it if it is chosen and none is running."""
        if self._is_chosen(number) and not self._first and not self._failed:
            self._start(number)
        if not self._first:
            yield
            return
        self._last = number
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield

    def _is_chosen(self, step: int) -> bool:
        return any(step in part for part in self._chosen)

    def _start(self, step: int) -> None:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # every call of every Python function would drown the programs
        with self._account.during("profile"), self._surviving():
            shutil.rmtree(self._temporary, ignore_errors=True)
            jax.profiler.start_trace(self._temporary, create_perfetto_trace=True, profiler_options=options)
            self._first = step

    def _stop(self) -> None:
        if not self._first:
            return
        first, self._first = self._first, 0
        steps = f"step_{first}" if first == self._last else f"steps_{first}-{self._last}"
        folder = self._workdir / BOARD_FOLDER / "plugins" / "profile" / f"{self._began}_{steps}"
        with self._account.during("profile"), self._surviving():
            jax.profiler.stop_trace()
            self._place(folder)
            self._say(f"Trace of {steps.replace('_', ' ')} in {folder}: `tensorboard --logdir {self._workdir}` (pip "
                      "install tensorboard xprof) shows it, https://ui.perfetto.dev opens the .perfetto_trace.json.gz.")

    def _place(self, folder: pathlib.Path) -> None:
        """Moves what JAX has written to where the processes, of which a host may have many, do not meet."""
        folder.mkdir(parents=True, exist_ok=True)
        process = f"{socket.gethostname()}_{jax.process_index()}"
        for pattern, name in (("*.xplane.pb", "xplane.pb"), ("perfetto_trace.json.gz", "perfetto_trace.json.gz")):
            found, = self._temporary.rglob(pattern)
            found.replace(folder / f"{process}.{name}")

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        """No fault of a trace ends a training."""
        try:
            yield
        except Exception as error:  # the profiler's, of a full disk or of a driver, are of many kinds
            self._failed = True
            self._say(f"TRACE FAILED: {' '.join(str(error).split())[:300]}; nothing more is traced, and the training "
                      "goes on")
        finally:
            if not self._first:
                shutil.rmtree(self._temporary, ignore_errors=True)
