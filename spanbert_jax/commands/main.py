"""`spanbert-jax COMMAND ...`: imports the command, runs it, and prints a user's mistake as one line."""
import argparse
import contextlib
import importlib
import keyword
import logging
import signal
import sys
import traceback
from collections.abc import Sequence

from spanbert_jax.cluster.exit_codes import DONE, FAILED, MISTAKE, PEER_LOST, SAVES_FAILED, STOPPED
from spanbert_jax.cluster.joining import end_now, is_joined, is_lost_peer, leave
from spanbert_jax.cluster.stopping import Stopped, StopRequest
from spanbert_jax.common.errors import RunFailed, SavesFailed, UserError

COMMANDS = {
    "config": "show a config as it would run, and what differs from the defaults",
    "plan": "estimate memory, speed and duration of a run before you start it",
    "prepare": "turn text into a corpus of training rows",
    "train": "pretrain or fine-tune as a config describes, or continue a stopped run",
    "sweep": "fine-tune with several seeds and settings, and compare them",
    "evaluate": "evaluate a pretrained model on validation rows, or a fine-tuned one on labelled files",
    "predict": "predict with a fine-tuned model, for files of any size",
    "checkpoints": "list the checkpoints of a run, and whether they are intact",
    "import": "import weights: Hugging Face, the released SpanBERT, PyTorch, TensorFlow",
    "export": "export a model: Hugging Face, reference, TensorFlow, ONNX, StableHLO",
    "fill": "fill in the [MASK]s of a text",
    "configs": "list the configs that come with the package",
    "docs": "show a page of the documentation",
}
# Exit statuses of errors whose message explains what happened; the first matching class counts.
_STATUSES = ((UserError, MISTAKE), (SavesFailed, SAVES_FAILED), (RunFailed, FAILED))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status, one of `cluster.exit_codes`.

    It ends the process itself, instead of returning, if Python's normal exit could hang or change the status: in a run
    of several processes, after a stop, when a thread may still be compiling, and if it is the process's own command.
    """
    own = argv is None
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] not in COMMANDS:
        return _without_command(argv)
    name, stopped = argv[0], False
    try:
        with StopRequest():  # before the imports of the command, which take most of the time until it runs
            # A module cannot have the name of a keyword, such as import.
            command = importlib.import_module(f"spanbert_jax.commands.{name}{'_' * keyword.iskeyword(name)}")
            parser = argparse.ArgumentParser(f"spanbert-jax {name}", description=command.__doc__, allow_abbrev=False,
                                             formatter_class=argparse.RawDescriptionHelpFormatter)
            command.add_arguments(parser)
            args = command.parse(parser, argv[1:]) if hasattr(command, "parse") else parser.parse_args(argv[1:])
            if own:
                _log_to_stderr()
            status, agreed = command.run(args), True
    except (Exception, KeyboardInterrupt, Stopped) as error:
        agreed, stopped = False, isinstance(error, Stopped)
        status, line = _explain(error)
        if line:
            with contextlib.suppress(OSError):  # such as a full disk; the status remains
                print(f"spanbert-jax {name}: {line}", file=sys.stderr, flush=True)
        elif is_joined():
            traceback.print_exc()
        else:
            raise
    if own:  # from here on, signals must not change the status
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    leave(status, agreed)
    if own or stopped:
        end_now(status)
    return status


def _log_to_stderr() -> None:
    """Prints the log messages of this package, independently of the root logger."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("spanbert_jax")
    logger.addHandler(handler)
    logger.propagate = False


def _explain(error: BaseException) -> tuple[int, str]:
    """The exit status and the message of an error; "" for a bug, whose traceback is printed instead."""
    if is_lost_peer(error):
        reason = " ".join(str(error).split())[:200]
        return PEER_LOST, f"another process of the run was lost ({reason}); run the same command again to continue"
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status, str(error)
    if isinstance(error, (Stopped, KeyboardInterrupt)):
        return STOPPED, f"stopped by {str(error) or 'SIGINT'}; run the same command again to continue"
    if isinstance(error, BrokenPipeError):  # such as `| head`
        return FAILED, "the output was not read to its end"
    return FAILED, ""


def _without_command(argv: Sequence[str]) -> int:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items())
    help_text = (f"usage: spanbert-jax COMMAND ...\n\n{commands}\n\n"
                 "`spanbert-jax COMMAND --help` describes a command. To start:\n"
                 "  spanbert-jax train --config configs/quickstart.py --workdir runs/quickstart")
    if argv and argv[0] in ("-h", "--help"):
        print(help_text)
        return DONE
    problem = f"unknown command {argv[0]!r}; allowed: {', '.join(COMMANDS)}" if argv else "no command given"
    print(f"spanbert-jax: {problem}\n{help_text}", file=sys.stderr)
    return MISTAKE
