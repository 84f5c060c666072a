"""Errors whose message is one line for the user."""
import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can fix: one line with what is wrong, what is allowed and what to do."""


class RunFailed(Exception):
    """A run that cannot continue although its settings are right: what happened, and what is left of the run."""


class SavesFailed(RunFailed):
    """Checkpoints could not be saved; make room or fix the disk, then run the same command again."""


def suggestion(name: str, allowed: Iterable[str]) -> str:
    """The allowed name nearest to a misspelled one, for a message: "did you mean 'x'? "; "" if none is near."""
    near = difflib.get_close_matches(str(name), list(allowed), n=1)
    return f"did you mean {near[0]!r}? " if near else ""
