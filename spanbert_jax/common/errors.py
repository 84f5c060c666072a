"""The errors that one line explains."""


class UserError(Exception):
    """A mistake the user can mend: one line saying what was wrong, what is allowed and what to do."""


class RunFailed(Exception):
    """A run that cannot go on, through no mistake in what it was told: what happened, and what is left of it."""


class SavesFailed(RunFailed):
    """Checkpoints could not be saved; make room or mend the disk, then run the same command again."""
