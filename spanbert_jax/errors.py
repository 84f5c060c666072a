"""The one error a user's mistake raises."""


class UserError(Exception):
    """A mistake the user can mend: one line saying what was wrong, what is allowed and what to do."""
