"""Standard streams that never end the work of a program: closed, on a full disk, left by their reader, or ASCII."""
import codecs
import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from spanbert_jax.common.errors import OutputLost

_STDIN, _STDOUT, _STDERR = range(3)  # file descriptors
_ESCAPES = "spanbert_jax.escapes"  # name of an error handler of codecs


class _Output(io.FileIO):
    """A descriptor that takes every write: what cannot be written is dropped, and its first error kept as `lost`.

    If the output is `required`, that error is raised too, as OutputLost. It is used without `io.BufferedWriter`, which
    would write its content twice if a signal's handler raised an exception here.
    """

    def __init__(self, descriptor: int, lost: OSError | None = None):
        super().__init__(descriptor, "w", closefd=False)
        self.lost, self.required = lost, False

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left:
                if (written := super().write(left)) is None:  # the descriptor does not block, and is not ready
                    select.select([], [self], [])
                else:
                    left = left[written:]
        except OSError as error:
            if self.lost is None:
                self.lost = error
                if self.required:
                    raise OutputLost(error) from None
        return size


@contextlib.contextmanager
def protected_streams() -> Iterator[None]:
    """Inside, no write to `sys.stdout` or `sys.stderr` raises an error, unless `require_output` asks for one.

    What a stream does not take is dropped, and characters that its encoding lacks are written as escapes. Closed
    descriptors 0 to 2 are opened on /dev/null for good, so that no other file gets their numbers. Streams that are not
    those of the process, such as a notebook's, stay as they are.
    """
    for number in (_STDIN, _STDOUT, _STDERR):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest free number
    previous = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _protected(sys.stdout, _STDOUT), _protected(sys.stderr, _STDERR)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, OutputLost):
                stream.flush()
        sys.stdout, sys.stderr = previous


def require_output() -> None:
    """From now on, what standard output does not take raises OutputLost; at once if that has already happened."""
    output = _output(sys.stdout)
    if output:
        output.required = True
    try:
        sys.stdout.flush()
    except OSError as error:  # of a stream that is not protected
        raise OutputLost(error) from None
    if output and output.lost:
        raise OutputLost(output.lost)


def reserve_stdout() -> None:
    """Leaves standard output to Python: what libraries write to its descriptor goes nowhere."""
    output = _output(sys.stdout)
    if not output or output.fileno() != _STDOUT:
        return
    sys.stdout.flush()
    own, nowhere = _Output(os.dup(_STDOUT), output.lost), os.open(os.devnull, os.O_WRONLY)
    own.required = output.required
    os.dup2(nowhere, _STDOUT)
    os.close(nowhere)
    sys.stdout = _as_text(own, sys.stdout)


def _output(stream: Any) -> _Output | None:
    """The descriptor of a protected stream; None for others."""
    output = getattr(stream, "buffer", None)
    return output if isinstance(output, _Output) else None


def _protected(stream: TextIO | None, number: int) -> TextIO:
    """A protected stream in place of one of the process; None, Python's value for a closed one, drops all."""
    if stream is None:
        closed = OSError(errno.EBADF, os.strerror(errno.EBADF))
        return io.TextIOWrapper(_Output(os.open(os.devnull, os.O_WRONLY), closed), "utf-8", "backslashreplace")
    try:
        foreign = stream.fileno() != number
    except (AttributeError, OSError, ValueError):  # a stream without a descriptor
        foreign = True
    if foreign or _output(stream) or not isinstance(stream, io.TextIOWrapper):
        return stream
    with contextlib.suppress(OSError):
        stream.flush()
    return _as_text(_Output(number), stream)


def _as_text(output: _Output, like: Any) -> TextIO:
    """A text stream with the settings of another one. An unbuffered one buffers lines, since lines stay whole then."""
    codecs.register_error(_ESCAPES, _escape)
    errors = _ESCAPES if like.errors in ("strict", "surrogateescape") else like.errors
    return io.TextIOWrapper(output, like.encoding, errors, line_buffering=like.line_buffering or like.write_through)


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """Keeps a byte of a file name that was not decoded, and writes any other character as an escape such as \\xe9."""
    if isinstance(error, UnicodeEncodeError):
        error.end = error.start + 1
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.backslashreplace_errors(error)
