"""`spanbert-jax COMMAND ...`: imports the command, runs it, and prints a user's mistake as one line."""
import argparse
import errno
import importlib
import itertools
import keyword
import logging
import os
import signal
import sys
import traceback
import types
from collections.abc import Sequence

import spanbert_jax
from spanbert_jax.cluster.exit_codes import DONE, FAILED, MISTAKE, NOT_WRITTEN, PEER_LOST, STOPPED
from spanbert_jax.cluster.joining import end_now, is_joined, is_lost_peer, leave
from spanbert_jax.cluster.platforms import leave_out_absent_tpu
from spanbert_jax.cluster.stopping import SIGNALS, Stopped, StopRequest
from spanbert_jax.common.errors import (
    OutputLost,
    RunFailed,
    SavesFailed,
    UserError,
    describe_panic,
    is_panic,
    printable,
    suggestion,
)
from spanbert_jax.common.streams import protected_streams, require_output

COMMANDS = {
    "config": "show a config as it would run, and what differs from the defaults",
    "plan": "estimate memory, speed and duration of a run before you start it",
    "prepare": "turn text into a corpus of training rows",
    "train": "pretrain or fine-tune as a config describes, or continue a stopped run",
    "sweep": "train with several seeds and settings, and compare them",
    "evaluate": "evaluate a pretrained model on validation rows, or a fine-tuned one on labelled files",
    "predict": "predict with a fine-tuned model, for files of any size",
    "checkpoints": "list the checkpoints of a run, and whether they are intact",
    "verify": "compare checkpoints, models, corpora and caches with their checksums",
    "import": "import weights: Hugging Face, the released SpanBERT, PyTorch, TensorFlow",
    "export": "export a model: Hugging Face, reference, TensorFlow, ONNX, StableHLO",
    "fill": "fill in the [MASK]s of a text",
    "configs": "list the configs that come with the package",
    "docs": "show a page of the documentation",
    "completion": "print a script that completes commands and flags in bash and zsh",
}
# What these commands make is in files, and what they print is said about it. What the others print is their result.
_WRITE_FILES = ("prepare", "train", "sweep", "predict", "import", "export")
# Exit statuses of errors whose message explains what happened; the first matching class counts.
_STATUSES = ((UserError, MISTAKE), (SavesFailed, NOT_WRITTEN), (RunFailed, FAILED))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status, one of `cluster.exit_codes`.

    It ends the process itself, instead of returning, if Python's normal exit could hang or change the status: in a run
    of several processes, after a stop, when a thread may still be compiling, and if it is the process's own command.
    """
    if argv is not None:
        return _main(list(argv), own=False)
    with protected_streams():
        return _main(sys.argv[1:], own=True)


def _main(argv: Sequence[str], own: bool) -> int:
    """`main`; with `own` it is the process's own command, and ends the process."""
    name, stopped, agreed = argv[0] if argv and argv[0] in COMMANDS else "", False, True
    try:
        status = _run_command(name, argv[1:], own) if name else _run_without_command(argv)
        if name not in _WRITE_FILES:
            require_output()
    except BaseException as error:
        if not isinstance(error, (Exception, KeyboardInterrupt, Stopped)) and not is_panic(error):
            raise  # such as argparse's SystemExit
        status, line = _explain(error)
        if line is None and (stop := _stop_behind(error)):
            error, (status, line) = stop, _explain(stop)
        # Failed saves are known to all processes at once.
        agreed, stopped = isinstance(error, SavesFailed), isinstance(error, Stopped)
        if line:
            print(f"{f'spanbert-jax {name}'.rstrip()}: {line}", file=sys.stderr, flush=True)
        elif line is None and (own or is_joined()):
            traceback.print_exc()
        elif line is None:
            raise
    if own:  # from here on, signals must not change the status
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    leave(status, agreed)
    if own or stopped:
        end_now(status)
    return status


def _run_command(name: str, argv: Sequence[str], own: bool) -> int:
    """Imports and runs a command. Returns its exit status."""
    if own:
        leave_out_absent_tpu()  # before the imports of the command, which may import JAX
    with StopRequest():  # before the imports of the command, which take most of the time until it runs
        command = import_command(name)
        parser = make_parser(name, command)
        _check_flags(parser, argv, overrides=hasattr(command, "parse"))
        try:
            args = command.parse(parser, argv) if hasattr(command, "parse") else parser.parse_args(argv)
        except SystemExit as ended:
            if not ended.code:  # the help is printed
                require_output()
            raise
        if own:
            _log_to_stderr()
        if name not in _WRITE_FILES:
            require_output()
        return command.run(args)


def import_command(name: str) -> types.ModuleType:
    """The module of a command. A module cannot have the name of a keyword, such as import."""
    return importlib.import_module(f"spanbert_jax.commands.{name}{'_' * keyword.iskeyword(name)}")


def make_parser(name: str, command: types.ModuleType) -> argparse.ArgumentParser:
    """The parser of a command's arguments."""
    parser = argparse.ArgumentParser(f"spanbert-jax {name}", description=command.__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_arguments(parser)
    return parser


def flags_of(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """The flags of a parser that begin with two dashes."""
    return {name: action for action in parser._actions for name in action.option_strings if name.startswith("--")}


def _check_flags(parser: argparse.ArgumentParser, argv: Sequence[str], overrides: bool) -> None:
    """Raises UserError for an unknown flag; with `overrides`, those of config fields are allowed."""
    flags = flags_of(parser)
    for word in itertools.takewhile(lambda word: word != "--", argv):
        name = word.partition("=")[0]
        if name.startswith("--") and name not in flags and not (overrides and name.startswith("--config.")):
            raise UserError(f"unknown flag {name}; {suggestion(name, flags)}allowed: {', '.join(flags)}"
                            f"{' and --config.FIELD=VALUE' * overrides}")


def _log_to_stderr() -> None:
    """Prints the log messages of this package, independently of the root logger."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("spanbert_jax")
    logger.addHandler(handler)
    logger.propagate = False


def _stop_behind(error: BaseException | None) -> Stopped | None:
    """The request to stop that is the direct cause of an error, as where a signal comes while a class is created.

    Python 3.11 raises RuntimeError from what `__set_name__` raises. Errors while a stop is handled are others.
    """
    while error:
        if isinstance(error, Stopped):
            return error
        error = error.__cause__
    return None


def _explain(error: BaseException) -> tuple[int, str | None]:
    """The exit status and the message of an error: "" for no message, None for a bug, which needs its traceback."""
    if is_lost_peer(error):
        reason = " ".join(str(error).split())[:200]
        return PEER_LOST, f"another process of the run was lost ({reason}); run the same command again to continue"
    full = _is_full_disk(error)
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return NOT_WRITTEN if full else status, str(error)
    if isinstance(error, (Stopped, KeyboardInterrupt)):
        return STOPPED, f"stopped by {str(error) or 'SIGINT'}; run the same command again to continue"
    if isinstance(error, OutputLost):  # a reader such as `head` has what it wanted
        return (DONE, "") if error.errno == errno.EPIPE else (NOT_WRITTEN, str(error))
    if full:
        return NOT_WRITTEN, (f"{getattr(error, 'filename', None) or 'a file'}: cannot be written (no space left on the "
                             "disk); make room, then run the same command again")
    if isinstance(error, OSError) and error.filename is not None:  # of a place that no command expects to fail
        return FAILED, f"{printable(str(error.filename))}: {error.strerror}; fix that, or give another path"
    if is_panic(error):
        return FAILED, describe_panic(error)
    frames = traceback.extract_tb(error.__traceback__)
    if frames and frames[-1].filename.endswith("xla_bridge.py"):  # JAX found no device
        platforms, reason = os.environ.get("JAX_PLATFORMS"), " ".join(str(error).split())
        return FAILED, (f"JAX_PLATFORMS={platforms!r}: JAX cannot use this platform here"
                        f"{f' ({reason})' if reason else ''}; unset it, or install jax for the accelerator, such as "
                        "pip install 'jax[cuda12]'")
    return FAILED, None


def _is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised for, means a full disk. Libraries have types of their own for it."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__
    return False


def _run_without_command(argv: Sequence[str]) -> int:
    """Prints help or version. Raises UserError for other arguments."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items())
    help_text = (f"usage: spanbert-jax COMMAND ...\n\n{commands}\n\n"
                 "`spanbert-jax COMMAND --help` describes a command. To start:\n"
                 "  spanbert-jax train --config configs/quickstart.py --workdir runs/quickstart")
    if not argv:
        print(help_text, file=sys.stderr)
        raise UserError("no command given; give one of those above")
    if argv[0] not in ("-h", "--help", "--version"):
        raise UserError(f"unknown command {argv[0]!r}; {suggestion(argv[0], COMMANDS)}allowed: {', '.join(COMMANDS)}")
    print(f"spanbert-jax {spanbert_jax.__version__}" if argv[0] == "--version" else help_text)
    return DONE
