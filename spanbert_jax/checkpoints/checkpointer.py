"""Checkpoints of a run: saved beside the training, verified before they are believed."""
from __future__ import annotations

import contextlib
import logging
import math
import pathlib
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import jax

from spanbert_jax.checkpoints import folder as names
from spanbert_jax.checkpoints.fingerprint import fingerprint
from spanbert_jax.checkpoints.manifest import verify, write_manifest
from spanbert_jax.checkpoints.reading import CorruptCheckpoint, read_metadata, read_params, read_state, require_saved
from spanbert_jax.checkpoints.retention import retained_steps
from spanbert_jax.checkpoints.saving import Save, short_reason
from spanbert_jax.cluster.agreement import any_process, broadcast_from_zero, is_process_zero
from spanbert_jax.common.errors import RunFailed, SavesFailed, UserError
from spanbert_jax.common.formatting import format_bytes

# What Orbax writes beside the arrays, and what a file system needs for itself.
_SPARE_SHARE, _SPARE_BYTES = 0.02, 1 << 20
# Between the tries of a save that nothing comes after; short, for a stopped run has seconds.
_RETRY_SECONDS = 2.0


class Checkpointer:
    """Saves and restores the states of a run, in WORKDIR/checkpoints/STEP.

    A context manager: leaving it waits for what is still being written, and raises nothing. With several processes all
    of them make the same calls in the same order.

    Attributes:
      failures: saves that failed since it was opened.
      bests: the steps that each scored better than all before. The last of them that is stored is kept.
    """

    def __init__(self, workdir: str | pathlib.Path, *, keep: int = 1, keep_every: int = 0, tries: int = 3,
                 read_only: bool = False, log: Callable[[str], None] = lambda line: print(line, file=sys.stderr)):
        """Opens the checkpoints of a run, making the folder and removing what a killed run left half-done.

        Args:
          workdir: of the run.
          keep: how many of the newest steps are kept.
          keep_every: of every so many steps the first that was saved is kept for good; 0 keeps none.
          tries: failed saves in a row after which `save` raises.
          read_only: makes, removes and renames nothing: a live run may be writing there.
          say: is told, in a line, of every failed save and every unsound step; on the first process alone, and from
            another thread too.

        Raises:
          UserError: when the folder cannot be made, or is not seen by all processes.
        """
        self.failures, self.best_steps = 0, []
        self._folder = pathlib.Path(workdir).absolute() / names.FOLDER
        self._keep, self._keep_every, self._tries = keep, keep_every, tries
        self._log = log if is_process_zero() else (lambda line: None)
        self._pending: tuple[int, Save] | None = None
        self._in_a_row, self._unsaved = 0, ""
        if not read_only:
            self._open()

    def __enter__(self) -> "Checkpointer":
        _absl.addFilter(_is_not_orbax)
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._pending:
            self._pending[1].wait()
        _absl.removeFilter(_is_not_orbax)

    def steps(self) -> list[int]:
        """The steps that are whole, sound or not, in order."""
        return names.list_steps(self._folder)

    def check_space(self, abstract: Any) -> None:
        """Before a run starts: that the disk has room for `keep` + 1 states, of which those stored already count.

        Raises:
          UserError: when it has not, or when nothing can be written there.
        """
        size, missing = _bytes(abstract), max(1, self._keep + 1 - len(self.steps()))
        if reason := broadcast_from_zero(self._obstacle(missing * size) if is_process_zero() else None):
            raise UserError(
                f"{self._folder}: {reason}; each checkpoint takes {format_bytes(size)}, and config.checkpoint.keep="
                f"{self._keep} needs {missing} more at a time; make room, keep fewer, or give another workdir")

    def save(self, step: int, state: Any, metadata: dict[str, Any]) -> None:
        """Begins to save a state; it may be donated at once. A save that fails is told, counted and survived.

        What is stored already of the same step stays if it is sound and the same, and is set aside if not.

        Args:
          step: of the state.
          state: to be saved.
          about: what JSON can hold: the config and whatever `resume` is to check. "fingerprint" is added to it.

        Raises:
          SavesFailed: when `tries` saves in a row have failed.
        """
        self._settle()
        metadata = metadata | {"fingerprint": fingerprint(state)}
        obstacle, stored = broadcast_from_zero(
            self._prepare(step, _bytes(state), metadata) if is_process_zero() else None)
        if stored:
            self._record(step, None)
            return
        if obstacle:
            self._tell_failure(step, obstacle)
            self._record(step, obstacle)
            return
        save = Save(names.saving_path(self._folder, step), finish=lambda: self._finish(step),
                    fail=lambda reason: self._tell_failure(step, reason))
        begun = save.begin(state, metadata)
        self._pending = step, save
        if any_process(not begun):
            self._settle()

    def wait(self) -> None:
        """Waits until what was asked to be saved is on disk, with its manifest.

        Raises:
          SavesFailed: when the save last asked for failed.
        """
        self._settle()
        if self._unsaved:
            raise SavesFailed(self._unsaved)

    def save_and_wait(self, step: int, state: Any, metadata: dict[str, Any]) -> None:
        """Saves a state and waits until it is on disk. A save that fails is tried again, for there may be room soon.

        Raises:
          SavesFailed: when `tries` saves in a row have failed.
        """
        self.save(step, state, metadata)
        self._settle()
        while self._unsaved:
            time.sleep(_RETRY_SECONDS)
            self.save(step, state, metadata)
            self._settle()

    def resume(self, abstract: Any, check: Callable[[int, dict[str, Any]], None]) -> (
            tuple[int, Any] | None):
        """The newest sound step and its state, laid out as the shardings of `abstract` say; None for a new run.

        Every byte is read and compared first. Corrupt steps are set aside under another name, never deleted.

        Args:
          abstract: shapes, dtypes and shardings of the state.
          check: is given a step and its `about` before the state is read, and raises UserError if they do not go.

        Raises:
          UserError: from `check`; when the state is of another shape; when there were steps and none is sound, since
            whoever trained for weeks wants no run that begins anew without a word, this time or the next.
          RunFailed: when the devices cannot hold the state, or a step whose files are sound cannot be read.
        """
        for step in broadcast_from_zero(self.steps()[::-1]):
            reason = broadcast_from_zero(self._verify(step) if is_process_zero() else None)
            if reason is None:
                try:
                    return step, self._restore(step, abstract, check)
                except CorruptCheckpoint as unsound:
                    reason = str(unsound)
            self._quarantine(step, reason)
        if aside := broadcast_from_zero(names.list_quarantined(self._folder)):
            raise UserError(
                f"{self._folder}: no sound checkpoint is left; set aside are {', '.join(aside)}, each with its reason "
                "in a .txt beside it; bring back a sound copy, or give another workdir to begin anew")
        return None

    def latest_valid(self, step: int | None = None) -> int:
        """The newest step whose files are sound, or `step` if its are. Alters nothing.

        Raises:
          UserError: when there is none; names the file that is not sound if `step` is asked for.
        """
        chosen, problem = broadcast_from_zero(self._choose(step) if is_process_zero() else None)
        if problem:
            raise UserError(f"{self._folder}: {problem}")
        return chosen

    def metadata(self, step: int) -> dict[str, Any]:
        """What was stored beside the state of a step.

        Raises:
          UserError: when it cannot be read.
        """
        metadata, reason = self._read_metadata(step)
        if reason:
            raise UserError(f"{self._folder}: checkpoint of step {step}: {reason}")
        return metadata

    def restore_params(self, step: int, abstract: Any) -> Any:
        """The parameters of a step alone, without reading the optimiser's state, checked by their fingerprints.

        Raises:
          UserError: when they cannot be read or are not what was saved.
        """
        path, params, reason = self._folder / str(step), None, None
        try:
            params = read_params(path, abstract)
        except UserError:
            raise
        except Exception as error:  # tensorstore's are of many kinds
            reason = f"cannot be read: {short_reason(error)}"
        if any_process(reason is not None):
            gone = "" if step in self.steps() else " (its run has deleted it meanwhile: do the same again)"
            raise UserError(f"{path}{gone}: {reason or 'cannot be read by another process'}")
        try:
            require_saved({"params": params}, self.metadata(step))
        except CorruptCheckpoint as unsound:
            raise UserError(f"{path}: {unsound}; `spanbert-jax checkpoints` lists the others") from None
        return params

    def _choose(self, step: int | None) -> tuple[int | None, str | None]:
        """The newest sound step, or `step` if it is sound; else what is wrong."""
        while True:
            steps, reason = self.steps(), None
            if not steps:
                return None, "no checkpoint yet; let the run train up to its first"
            if step is not None and step not in steps:
                return None, f"no checkpoint of step {step}; there are {steps}"
            for candidate in steps[::-1] if step is None else [step]:
                reason = self._verify(candidate)
                if reason is None:
                    return candidate, None
            if steps == self.steps():  # or else a live run has moved on meanwhile
                which = f"checkpoints of steps {steps} are" if step is None else f"checkpoint of step {step} is"
                return None, f"the {which} unsound: {reason}; `spanbert-jax checkpoints` tells more"

    def _open(self) -> None:
        reason = None
        if is_process_zero():
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                names.remove_remains(self._folder)
            except FileExistsError:
                reason = "is in the way: a folder has to be here"
            except OSError as error:
                reason = f"cannot be written: {short_reason(error)}"
        if reason := broadcast_from_zero(reason):
            raise UserError(f"{self._folder}: {reason}; move it away, or give another workdir")
        if any_process(not self._folder.is_dir()):
            raise UserError(f"{self._folder}: not every process of the run sees it; give a workdir on a file system "
                            "that all of them share")

    def _prepare(self, step: int, size: int, metadata: dict[str, Any]) -> tuple[str | None, bool]:
        """Before a save: what is in its way, if anything, and whether it is stored already."""
        if not self._folder.exists():
            self._log(f"{self._folder} has vanished, with the checkpoints in it; it is made anew")
        if obstacle := self._obstacle(size):
            return obstacle, False
        if step in self.steps():
            reason = self._verify(step, full=False) or self._other_state(step, metadata)
            if reason is None:
                return None, True
            return self._try_quarantine(step, reason), False
        return None, False

    def _other_state(self, step: int, metadata: dict[str, Any]) -> str | None:
        try:
            stored = read_metadata(self._folder / str(step)).get("fingerprint")
        except CorruptCheckpoint as unsound:
            return str(unsound)
        return None if stored == metadata["fingerprint"] else "another state of the same step was saved later"

    def _obstacle(self, size: int) -> str | None:
        """Why `size` more bytes could not be stored, or None."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._remove_remains()
            probe = self._folder / "writable.tmp"
            probe.write_bytes(b"written")
            probe.unlink()
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            return short_reason(error)
        needed = math.ceil(size * (1 + _SPARE_SHARE)) + _SPARE_BYTES
        return f"{format_bytes(needed)} are needed and {format_bytes(free)} are free" if free < needed else None

    def _finish(self, step: int) -> None:
        """In the background, when Orbax is done: vouches for a step, shows it, and deletes those not kept any more."""
        if not is_process_zero():
            return
        best = max(({step, *self.steps()} & {*self.best_steps}), default=0)
        write_manifest(names.manifest_path(self._folder, step), names.saving_path(self._folder, step), step,
                       self._keep, self._keep_every, best)
        names.publish(self._folder, step)
        steps = self.steps()
        for old in sorted(set(steps) - retained_steps(steps, self._keep, self._keep_every, best).keys()):
            try:
                names.remove(self._folder, old)
            except OSError as error:
                self._log(f"the checkpoint of step {old:,} could not be deleted: {short_reason(error)}")

    def _settle(self) -> None:
        """Waits for the save before, if there is one, and takes note of its end, as the first process knows it."""
        if not self._pending:
            return
        (step, save), self._pending = self._pending, None
        reason = broadcast_from_zero(save.wait() if is_process_zero() else None)
        if reason:
            save.cancel()
        else:
            save.wait()
        self._record(step, reason)

    def _record(self, step: int, reason: str | None) -> None:
        if reason is None:
            self._in_a_row, self._unsaved = 0, ""
            return
        self.failures, self._in_a_row = self.failures + 1, self._in_a_row + 1
        if is_process_zero():
            self._remove_remains()
        self._unsaved = (f"step {step:,} could not be saved ({self._in_a_row} in a row failed): {reason}; "
                         f"{self._safe_words()}; make room or mend the disk, then run the same command again")
        if self._in_a_row >= self._tries:
            raise SavesFailed(self._unsaved)

    def _remove_remains(self) -> None:
        """Deletes what a failed save left, as far as that goes: its threads may still be writing there."""
        with contextlib.suppress(OSError):
            names.remove_remains(self._folder)

    def _tell_failure(self, step: int, reason: str) -> None:
        self._log(f"SAVE FAILED: step {step:,}: {reason}; {self._in_a_row + 1} of at most {self._tries} in a row; "
                  f"{self._safe_words()}; the training goes on")

    def _safe_words(self) -> str:
        safe = next((step for step in self.steps()[::-1] if self._verify(step, full=False) is None), None)
        return f"in {self._folder} " + ("nothing is safe" if safe is None else f"step {safe:,} is safe")

    def _verify(self, step: int, full: bool = True) -> str | None:
        return verify(self._folder / str(step), names.manifest_path(self._folder, step), step, full=full)

    def _read_metadata(self, step: int) -> tuple[dict[str, Any] | None, str | None]:
        """What is stored beside a state, or why that cannot be read, as the first process finds it."""
        metadata, reason = None, None
        if is_process_zero():
            try:
                metadata = read_metadata(self._folder / str(step))
            except CorruptCheckpoint as unsound:
                reason = str(unsound)
        return broadcast_from_zero((metadata, reason))

    def _restore(self, step: int, abstract: Any, check: Callable[[int, dict[str, Any]], None]) -> Any:
        """The state of a step whose files are valid; raises CorruptCheckpoint, on every process, if its state is not."""
        path = self._folder / str(step)
        metadata, reason = self._read_metadata(step)
        if reason:
            raise CorruptCheckpoint(reason)
        check(step, metadata)
        state = None
        try:
            state = read_state(path, abstract)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            raise RunFailed(
                f"{path}: the devices cannot hold the state: {short_reason(error)}; nothing was altered") from None
        except UserError:
            raise
        except Exception as error:  # tensorstore's are of many kinds
            reason = f"cannot be read: {short_reason(error)}"
        if any_process(reason is not None):
            raise RunFailed(f"{path}: its files are as they were written, and yet it {reason or 'cannot be read'}; "
                            "nothing was altered; try again, or move it away to go on from the step before")
        require_saved(state, metadata)
        return state

    def _quarantine(self, step: int, reason: str) -> None:
        if failure := broadcast_from_zero(self._try_quarantine(step, reason) if is_process_zero() else None):
            raise UserError(f"{self._folder}: the checkpoint of step {step} is unsound ({reason}) and cannot be set "
                            f"aside: {failure}; make the folder writable")

    def _try_quarantine(self, step: int, reason: str) -> str | None:
        """Sets a step aside and tells of it. Returns why that failed, or None."""
        try:
            name = names.quarantine(self._folder, step, reason)
        except OSError as error:
            return short_reason(error)
        self._log(f"The checkpoint of step {step:,} is not to be believed and set aside as {name}: {reason}")
        return None


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


_absl = logging.getLogger("absl")


def _is_not_orbax(record: logging.LogRecord) -> bool:
    """Drops Orbax's tracebacks of errors that are told in a line here."""
    return "/orbax/checkpoint/" not in record.pathname
