"""Errors whose message is one line for the user."""
import difflib
import logging
import unicodedata
from collections.abc import Iterable

# Unicode categories of characters that could move the cursor, begin a line, or turn the direction of a text.
_UNPRINTED = ("Cc", "Cf", "Cs", "Zl", "Zp")
_LONGEST_MESSAGE = 8000  # characters
_LONGEST_NAME = 100  # characters that are compared for a suggestion


class UserError(Exception):
    """A mistake that the user can fix: one line with what is wrong, what is allowed and what to do.

    Names and values in it may come from any file, so that `printable` is applied.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class RunFailed(Exception):
    """A run that cannot continue although its settings are right: what happened, and what is left of the run."""


class SavesFailed(RunFailed):
    """Checkpoints could not be saved; make room or fix the disk, then run the same command again."""


def printable(text: str) -> str:
    """A text on one line that has no effect on a terminal: control characters are escaped, and a long one abbreviated.
    """
    if len(text) > _LONGEST_MESSAGE:
        text = f"{text[:_LONGEST_MESSAGE // 2]} ... {text[-_LONGEST_MESSAGE // 2:]}"
    if text.isprintable():
        return text
    return "".join(repr(character)[1:-1] if unicodedata.category(character) in _UNPRINTED else character
                   for character in text)


class PrintableMessages(logging.Filter):
    """Makes log messages `printable`, like those of errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Changes the message; no record is left out."""
        record.msg, record.args = printable(record.getMessage()), ()
        return True


logging.getLogger("spanbert_jax").addFilter(PrintableMessages())


class OutputLost(Exception):
    """Standard output is the result of a command, and could not be written: closed, full, or left by its reader."""

    def __init__(self, error: OSError):
        """Args: error: of the write that failed."""
        super().__init__(f"standard output: cannot be written ({error.strerror or error})")
        self.errno = error.errno


def is_panic(error: BaseException) -> bool:
    """Whether a library in Rust, such as tokenizers, failed inside. Such an error is no Exception, nor importable."""
    return type(error).__module__ == "pyo3_runtime"


def describe_panic(error: BaseException) -> str:
    """A message about it."""
    reason = printable(" ".join(str(error).split()))
    return f"a library failed ({reason}); perhaps a tokenizer is damaged: fetch it again"


def suggestion(name: str, allowed: Iterable[str]) -> str:
    """The allowed name nearest to a misspelled one, for a message: "did you mean 'x'? "; "" if none is near."""
    near = difflib.get_close_matches(str(name)[:_LONGEST_NAME], list(allowed), n=1)
    return f"did you mean {near[0]!r}? " if near else ""
