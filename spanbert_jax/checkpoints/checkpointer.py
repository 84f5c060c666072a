"""Checkpoints of a run: saved in the background, verified before they are restored."""
import contextlib
import logging
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any, Self

import jax

from spanbert_jax.checkpoints import folder as names
from spanbert_jax.checkpoints.fingerprint import fingerprint
from spanbert_jax.checkpoints.manifest import verify, write_manifest
from spanbert_jax.checkpoints.reading import CorruptCheckpoint, read_metadata, read_params, read_state, require_saved
from spanbert_jax.checkpoints.retention import retained_steps
from spanbert_jax.checkpoints.saving import Save, find_obstacle, short_reason
from spanbert_jax.cluster.agreement import any_process, broadcast_from_zero, is_process_zero
from spanbert_jax.common.directories import make_own_directory
from spanbert_jax.common.errors import RunFailed, SavesFailed, UserError
from spanbert_jax.common.files import describe_failure
from spanbert_jax.common.formatting import format_bytes

# Between the attempts to save a last state; short, because a run that is being stopped has only seconds left.
_RETRY_SECONDS = 2.0


class Checkpointer:
    """Saves and restores the states of a run, in WORKDIR/checkpoints/STEP.

    A context manager: on exit it waits for the save in progress and raises nothing. In a run of several processes, all
    of them make the same calls in the same order.
    """

    def __init__(self, workdir: str | pathlib.Path, *, keep: int = 1, keep_every: int = 0, tries: int = 3,
                 read_only: bool = False, log: Callable[[str], None] = lambda line: print(line, file=sys.stderr)):
        """Opens the checkpoints of a run. Creates the folder and removes what a killed run left incomplete.

        Args:
          keep: number of newest steps to keep.
          keep_every: keeps the first step saved in every interval of this many steps for good; 0 keeps none.
          tries: number of consecutive failed saves after which `save` raises.
          read_only: creates, removes and renames nothing, because a live run may be writing there.
          log: called with one line for every failed save and every corrupt step; only on process 0, and also from
            another thread.

        Raises:
          UserError: the folder cannot be created, or not every process sees it.
        """
        self.failures = 0  # number of failed saves since it was opened
        self.best_steps = list[int]()  # each scored better than all before; the last of them that is stored is kept
        self._folder = pathlib.Path(workdir).absolute() / names.FOLDER
        self._keep, self._keep_every, self._tries = keep, keep_every, tries
        self._log = log if is_process_zero() else (lambda line: None)
        self._pending: tuple[int, Save] | None = None
        self._consecutive_failures, self._last_failure = 0, ""
        if not read_only:
            self._open()

    def __enter__(self) -> Self:
        _absl.addFilter(_is_not_orbax)
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._pending:
            self._pending[1].wait()
        _absl.removeFilter(_is_not_orbax)

    def steps(self) -> list[int]:
        """Returns the complete steps in order, valid or corrupt."""
        return names.list_steps(self._folder)

    def check_space(self, abstract: Any) -> None:
        """Raises UserError unless the folder is writable and has room for `keep` + 1 states, with those in it."""
        size, missing = _bytes(abstract), max(1, self._keep + 1 - len(self.steps()))
        if reason := broadcast_from_zero(self._find_obstacle(missing * size) if is_process_zero() else None):
            raise UserError(
                f"{self._folder}: {reason}; each checkpoint takes {format_bytes(size)}, and config.checkpoint.keep="
                f"{self._keep} needs {missing} more at a time; make room, keep fewer, or give another workdir")

    def save(self, step: int, state: Any, metadata: dict[str, Any]) -> None:
        """Starts to save a state, which may be donated when this returns. A failed save is logged and counted.

        If the step is stored already, a valid checkpoint of the same state stays; any other is set aside. `metadata`
        are JSON values: the config, and what `resume` checks. "fingerprint" is added. Raises SavesFailed if `tries`
        consecutive saves have failed.
        """
        self._finish_pending()
        metadata = metadata | {"fingerprint": fingerprint(state)}
        obstacle, stored = broadcast_from_zero(
            self._prepare_save(step, _bytes(state), metadata) if is_process_zero() else None)
        if stored:
            self._record(step, None)
            return
        if obstacle:
            self._log_failure(step, obstacle)
            self._record(step, obstacle)
            return
        save = Save(names.saving_path(self._folder, step), finish=lambda: self._publish(step),
                    fail=lambda reason: self._log_failure(step, reason))
        started = save.begin(state, metadata)
        self._pending = step, save
        if any_process(not started):
            self._finish_pending()

    def wait(self) -> None:
        """Waits until the last save is on disk, with its manifest. Raises SavesFailed if it failed."""
        self._finish_pending()
        if self._last_failure:
            raise SavesFailed(self._last_failure)

    def save_and_wait(self, step: int, state: Any, metadata: dict[str, Any]) -> None:
        """Saves a state and waits until it is on disk. Repeats a failed save; raises SavesFailed after `tries`."""
        while True:
            self.save(step, state, metadata)
            self._finish_pending()
            if not self._last_failure:
                return
            time.sleep(_RETRY_SECONDS)

    def resume(self, abstract: Any, check: Callable[[int, dict[str, Any]], None]) -> tuple[int, Any] | None:
        """Restores the latest valid step. Every byte is verified first; corrupt steps are set aside, never deleted.

        Args:
          abstract: shapes, dtypes and shardings of the state.
          check: called with a step and its metadata before the state is read; raises UserError if they do not fit.

        Returns:
          The step and its state, with the shardings of `abstract`; None for a new run.

        Raises:
          UserError: from `check`; the state has other shapes; or all stored steps are corrupt. The last case is an
            error because starting again would silently discard the training so far.
          RunFailed: the devices cannot hold the state, or a step whose files are valid cannot be read.
        """
        for step in broadcast_from_zero(self.steps()[::-1]):
            reason = broadcast_from_zero(self._verify(step) if is_process_zero() else None)
            if reason is None:
                try:
                    return step, self._restore(step, abstract, check)
                except CorruptCheckpoint as corrupt:
                    reason = str(corrupt)
            if failure := broadcast_from_zero(self._quarantine(step, reason) if is_process_zero() else None):
                raise UserError(f"{self._folder}: the checkpoint of step {step} is corrupt ({reason}) and cannot be "
                                f"set aside: {failure}; make the folder writable")
        if quarantined := broadcast_from_zero(names.list_quarantined(self._folder)):
            raise UserError(
                f"{self._folder}: no valid checkpoint is left; set aside are {', '.join(quarantined)}, each with its "
                "reason in a .txt file beside it; restore a valid copy, or give another workdir to start again")
        return None

    def latest_valid(self, step: int | None = None) -> int:
        """Returns the latest step with valid files, or `step` if its files are valid. Raises UserError if not."""
        chosen, problem = broadcast_from_zero(self._find_valid(step) if is_process_zero() else None)
        if problem:
            raise UserError(f"{self._folder}: {problem}")
        return chosen

    def metadata(self, step: int) -> dict[str, Any]:
        """Returns the metadata that was saved with a step. Raises UserError if it cannot be read."""
        metadata, reason = self._read_metadata(step)
        if metadata is None:
            raise UserError(f"{self._folder}: checkpoint of step {step}: {reason}")
        return metadata

    def restore_params(self, step: int, abstract: Any) -> Any:
        """Restores only the parameters of a step. Raises UserError if they are unreadable or not those saved."""
        path, params, reason = self._folder / str(step), None, None
        try:
            params = read_params(path, abstract)
        except UserError:
            raise
        except Exception as error:  # tensorstore raises many types
            reason = f"cannot be read: {short_reason(error)}"
        if any_process(reason is not None):
            deleted = "" if step in self.steps() else " (its run has deleted it meanwhile: do the same again)"
            raise UserError(f"{path}{deleted}: {reason or 'cannot be read by another process'}")
        try:
            require_saved({"params": params}, self.metadata(step))
        except CorruptCheckpoint as corrupt:
            raise UserError(f"{path}: {corrupt}; `spanbert-jax checkpoints` lists the others") from None
        return params

    def _find_valid(self, step: int | None) -> tuple[int | None, str | None]:
        """Returns the latest valid step, or `step` if it is valid; else what is wrong."""
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
            if steps == self.steps():  # otherwise a live run has saved or deleted a step meanwhile
                which = f"checkpoints of steps {steps} are" if step is None else f"checkpoint of step {step} is"
                return None, f"the {which} corrupt: {reason}; `spanbert-jax checkpoints` shows details"

    def _open(self) -> None:
        reason = None
        if is_process_zero():
            try:
                make_own_directory(self._folder)
                names.remove_leftovers(self._folder)
            except UserError as error:
                reason = str(error)
            except OSError as error:
                reason = (f"{self._folder}: cannot be written ({describe_failure(error, self._folder)}); fix that, or "
                          "give another workdir")
        if reason := broadcast_from_zero(reason):
            raise UserError(reason)
        if any_process(not self._folder.is_dir()):
            raise UserError(f"{self._folder}: not every process of the run sees it; give a workdir on a file system "
                            "that all of them share")

    def _prepare_save(self, step: int, size: int, metadata: dict[str, Any]) -> tuple[str | None, bool]:
        """Returns why the step cannot be saved, if so, and whether it is stored already."""
        if not self._folder.exists():
            self._log(f"{self._folder} has vanished, with the checkpoints in it; it is created again")
        if obstacle := self._find_obstacle(size):
            return obstacle, False
        if step not in self.steps():
            return None, False
        reason = self._verify(step, full=False)
        try:
            if not reason and read_metadata(self._folder / str(step)).get("fingerprint") != metadata["fingerprint"]:
                reason = "another state of the same step was saved later"
        except CorruptCheckpoint as corrupt:
            reason = str(corrupt)
        return (self._quarantine(step, reason), False) if reason else (None, True)

    def _find_obstacle(self, size: int) -> str | None:
        """Returns why `size` more bytes cannot be stored, or None. Creates the folder again if it has vanished."""
        try:
            make_own_directory(self._folder)
        except UserError as error:
            return str(error)
        except OSError as error:
            return short_reason(error)
        self._remove_leftovers()
        return find_obstacle(self._folder, size)

    def _publish(self, step: int) -> None:
        """Writes the manifest of a step, gives the step its name, and deletes steps that are no longer kept."""
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

    def _finish_pending(self) -> None:
        """Waits for the save in progress, if any, and records its result as process 0 knows it."""
        if not self._pending:
            return
        (step, save), self._pending = self._pending, None
        reason = broadcast_from_zero(save.wait() if is_process_zero() else None)
        save.cancel() if reason else save.wait()
        self._record(step, reason)

    def _record(self, step: int, reason: str | None) -> None:
        """Counts a save: `reason` is why it failed, or None."""
        if reason is None:
            self._consecutive_failures, self._last_failure = 0, ""
            return
        self.failures, self._consecutive_failures = self.failures + 1, self._consecutive_failures + 1
        if is_process_zero():
            self._remove_leftovers()
        self._last_failure = (
            f"step {step:,} could not be saved ({self._consecutive_failures} in a row failed): {reason}; "
            f"{self._describe_safe_step()}; make room or fix the disk, then run the same command again")
        if self._consecutive_failures >= self._tries:
            raise SavesFailed(self._last_failure)

    def _remove_leftovers(self) -> None:
        """Deletes what a failed save left, as far as possible: its threads may still be writing there."""
        with contextlib.suppress(OSError):
            names.remove_leftovers(self._folder)

    def _log_failure(self, step: int, reason: str) -> None:
        self._log(f"SAVE FAILED: step {step:,}: {reason}; {self._consecutive_failures + 1} of at most {self._tries} in "
                  f"a row; {self._describe_safe_step()}; training continues")

    def _describe_safe_step(self) -> str:
        safe = next((step for step in self.steps()[::-1] if self._verify(step, full=False) is None), None)
        return f"in {self._folder} " + ("nothing is safe" if safe is None else f"step {safe:,} is safe")

    def _verify(self, step: int, full: bool = True) -> str | None:
        return verify(self._folder / str(step), names.manifest_path(self._folder, step), step, full=full)

    def _read_metadata(self, step: int) -> tuple[dict[str, Any] | None, str | None]:
        """Returns the metadata of a step, or why it cannot be read, as process 0 finds it."""
        metadata, reason = None, None
        if is_process_zero():
            try:
                metadata = read_metadata(self._folder / str(step))
            except CorruptCheckpoint as corrupt:
                reason = str(corrupt)
        return broadcast_from_zero((metadata, reason))

    def _restore(self, step: int, abstract: Any, check: Callable[[int, dict[str, Any]], None]) -> Any:
        """Restores a step whose files are valid. Raises CorruptCheckpoint on every process if its content is not."""
        path = self._folder / str(step)
        metadata, reason = self._read_metadata(step)
        if metadata is None:
            raise CorruptCheckpoint(reason)
        check(step, metadata)
        state = None
        try:
            state = read_state(path, abstract)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            raise RunFailed(
                f"{path}: the devices cannot hold the state: {short_reason(error)}; nothing was changed") from None
        except UserError:
            raise
        except Exception as error:  # tensorstore raises many types
            reason = f"cannot be read: {short_reason(error)}"
        if any_process(reason is not None):
            raise RunFailed(f"{path}: its files are as they were written, and yet it {reason or 'cannot be read'}; "
                            "nothing was changed; try again, or move it away to continue from the step before")
        require_saved(state, metadata)
        return state

    def _quarantine(self, step: int, reason: str) -> str | None:
        """Sets a step aside and logs it. Returns why that failed, or None."""
        try:
            name = names.quarantine(self._folder, step, reason)
        except OSError as error:
            return short_reason(error)
        self._log(f"The checkpoint of step {step:,} is not usable and was set aside as {name}: {reason}")
        return None


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


_absl = logging.getLogger("absl")


def _is_not_orbax(record: logging.LogRecord) -> bool:
    """Filters out Orbax's tracebacks of errors that are reported as one line here."""
    return "/orbax/checkpoint/" not in record.pathname
