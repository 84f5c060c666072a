"""Profiler traces of chosen updates, for TensorBoard and Perfetto."""
import contextlib
import pathlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import jax

from spanbert_jax.cluster.agreement import broadcast_from_zero
from spanbert_jax.common.directories import partial_directory
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import publish
from spanbert_jax.training.goodput import Goodput
from spanbert_jax.training.trackers.tensorboard import TENSORBOARD_FOLDER

MOST_STEPS = 100  # in one trace: it is held in memory until it is written, and a viewer shows a million events


def parse_steps(text: str) -> tuple[range, ...]:
    """The updates that `config.profile` selects, ascending; adjacent ones are joined into one range.

    `text` has updates, counted from 1 as in the log, and ranges that include both ends: "100-104,2000"; "" for none.

    Raises:
      UserError: the text has another form, or selects more than MOST_STEPS in a row.
    """
    chosen: list[range] = []
    for steps in sorted((_range(text, part) for part in text.split(",") if text), key=lambda steps: steps.start):
        if chosen and steps.start <= chosen[-1].stop:
            chosen[-1] = range(chosen[-1].start, max(chosen[-1].stop, steps.stop))
        else:
            chosen.append(steps)
    if any(steps.stop - steps.start > MOST_STEPS for steps in chosen):
        raise UserError(f"config.profile={text!r}: at most {MOST_STEPS} steps in a row; a trace is held in memory")
    return tuple(chosen)


def _range(text: str, part: str) -> range:
    match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", part)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last:
        raise UserError(f"config.profile={text!r}: {part!r} is neither a step, counted from 1, nor a range of them; "
                        "write them as in '100-104,2000'")
    return range(first, last + 1)


class Profiler:
    """Traces the selected updates of a training loop; a context manager that ends a running trace.

    Each process writes two files to WORKDIR/tensorboard/plugins/profile/NAME, named by host and process number:
    HOST_0.xplane.pb for TensorBoard and HOST_0.perfetto_trace.json.gz for Perfetto. Every update in a trace is an event
    "train" with its `step_num`. After an error, which is logged, nothing more is traced.
    """

    def __init__(self, text: str, workdir: pathlib.Path, steps: range, goodput: Goodput, log: Callable[[str], None]):
        """Traces nothing yet. Every process of a run must create one.

        Args: text: `config.profile`; steps: the remaining updates of the run; log: gets the place of each trace.
        """
        self._chosen, self._goodput, self._log = parse_steps(text), goodput, log
        self._workdir, self._temporary = workdir, contextlib.ExitStack()
        self._first = self._last = 0  # of the running trace; 0 without one
        self._failed = False
        if self._chosen:
            # The same name on all processes, and a new one for each attempt, because viewers cache traces by name.
            self._began = broadcast_from_zero(time.strftime("%Y%m%d-%H%M%S"))
            if not any(part.start < steps.stop and steps.start < part.stop for part in self._chosen):
                log(f"config.profile={text!r}: all of these steps are done or beyond the end; nothing is traced.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stop()

    def turns(self, step: int) -> bool:
        """Whether a trace starts or ends after `step`: its computation must be finished by then.

        All processes return the same, whether or not tracing has failed on one.
        """
        return self._is_chosen(step) != self._is_chosen(step + 1)

    def stop_after(self, step: int) -> None:
        """Ends and writes the running trace unless the update after `step` belongs to it."""
        if not self._is_chosen(step + 1):
            self._stop()

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Context of an update; starts a trace if the update is selected and none is running."""
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
        options.python_tracer_level = 0  # events of every Python call would hide those of the programs
        with self._goodput.during("profile"), self._survive_errors():
            self._written = self._temporary.enter_context(partial_directory(
                self._workdir / TENSORBOARD_FOLDER, f"profile-{jax.process_index()}"))
            jax.profiler.start_trace(self._written, create_perfetto_trace=True, profiler_options=options)
            self._first = step

    def _stop(self) -> None:
        if not self._first:
            return
        first, self._first = self._first, 0
        steps = f"step_{first}" if first == self._last else f"steps_{first}-{self._last}"
        folder = self._workdir / TENSORBOARD_FOLDER / "plugins" / "profile" / f"{self._began}_{steps}"
        with self._goodput.during("profile"), self._survive_errors():
            jax.profiler.stop_trace()
            # JAX's names do not include host and process.
            folder.mkdir(parents=True, exist_ok=True)
            process = f"{socket.gethostname()}_{jax.process_index()}"
            for pattern, name in (("*.xplane.pb", "xplane.pb"), ("perfetto_trace.json.gz", "perfetto_trace.json.gz")):
                found, = self._written.rglob(pattern)
                publish(found, folder / f"{process}.{name}")
            self._log(f"Trace of {steps.replace('_', ' ')} in {folder}: `tensorboard --logdir {self._workdir}` (pip "
                      "install tensorboard xprof) shows it, https://ui.perfetto.dev opens the .perfetto_trace.json.gz.")

    @contextlib.contextmanager
    def _survive_errors(self) -> Iterator[None]:
        """Context in which an error of the profiler is logged and does not end the training."""
        try:
            yield
        except Exception as error:  # full disks and drivers raise many types
            self._failed = True
            self._log(f"TRACE FAILED: {' '.join(str(error).split())[:300]}; nothing more is traced; training continues")
        finally:
            if not self._first:
                self._temporary.close()
