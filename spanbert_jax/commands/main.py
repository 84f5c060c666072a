"""`spanbert-jax VERB ...`: finds the verb, runs it, and turns a user's mistake into one line."""
from __future__ import annotations

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

VERBS = {
    "plan": "say what a run needs and how long it takes, before it is paid for",
    "prepare": "turn text into rows to train on",
    "train": "pretrain or fine-tune what a config describes, or go on with it",
    "sweep": "fine-tune with several seeds and settings, and say which is best",
    "evaluate": "measure a trained network on held-out rows, or a fine-tuned one on labelled files",
    "predict": "predict with a fine-tuned network, for files of any size",
    "checkpoints": "list the checkpoints of a run and whether they are sound",
    "import": "bring weights in: Hugging Face, the released SpanBERT, PyTorch, TensorFlow",
    "export": "take a trained network out: Hugging Face, reference, TensorFlow, ONNX, StableHLO",
    "fill": "fill the [MASK]s of a text",
    "docs": "show a page of the documentation",
}
# What the shell sees of an error that says itself what happened; the first that fits.
_STATUSES = ((UserError, MISTAKE), (SavesFailed, SAVES_FAILED), (RunFailed, FAILED))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status, one of `cluster.exit_codes`.

    It ends the process itself, instead of returning, where Python's way out could hang or change the status: in a run
    of many processes, after a stop, as a library may still be compiling in a thread, and as the process's own command.
    """
    own = argv is None
    argv = list(sys.argv[1:] if own else argv)
    if not argv or argv[0] not in VERBS:
        return _without_verb(argv)
    verb_name = argv[0]
    # A file cannot bear the name of a keyword, such as import.
    verb = importlib.import_module(f"spanbert_jax.commands.{verb_name}{'_' * keyword.iskeyword(verb_name)}")
    parser = argparse.ArgumentParser(
        prog=f"spanbert-jax {verb_name}", description=verb.__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    verb.add_arguments(parser)
    args = verb.parse(parser, argv[1:]) if hasattr(verb, "parse") else parser.parse_args(argv[1:])
    if own:
        _log_to_stderr()
    stopped = False
    try:
        with StopRequest():
            status, agreed = verb.run(args), True
    except (Exception, KeyboardInterrupt, Stopped) as error:
        agreed, stopped = False, isinstance(error, Stopped)
        status, line = _explain(error)
        if line:
            with contextlib.suppress(OSError):  # of a full disk: the status says it too
                print(f"spanbert-jax {verb_name}: {line}", file=sys.stderr, flush=True)
        elif is_joined():
            traceback.print_exc()
        else:
            raise
    if own:  # The status is settled, and all that is left is to end with it.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    leave(status, agreed)
    if own or stopped:
        end_now(status)
    return status


def _log_to_stderr() -> None:
    """Shows what this package logs as it is, whatever the libraries do to the root logger."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("spanbert_jax")
    logger.addHandler(handler)
    logger.propagate = False


def _explain(error: BaseException) -> tuple[int, str]:
    """The exit status of an error and what to say of it; nothing of a bug, whose traceback says more."""
    if is_lost_peer(error):
        what = " ".join(str(error).split())[:200]
        return PEER_LOST, f"another process of the run was lost ({what}); the same command goes on"
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status, str(error)
    if isinstance(error, (Stopped, KeyboardInterrupt)):
        return STOPPED, f"stopped by {str(error) or 'SIGINT'}; the same command goes on"
    return FAILED, ""


def _without_verb(argv: Sequence[str]) -> int:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:{width}}  {what}" for verb, what in VERBS.items())
    help_text = (f"usage: spanbert-jax VERB ...\n\n{verbs}\n\n`spanbert-jax VERB --help` tells more. To begin:\n"
                 "  spanbert-jax train --config configs/quickstart.py --workdir runs/quickstart")
    if argv and argv[0] in ("-h", "--help"):
        print(help_text)
        return DONE
    problem = f"unknown verb {argv[0]!r}; allowed: {', '.join(VERBS)}" if argv else "no verb given"
    print(f"spanbert-jax: {problem}\n{help_text}", file=sys.stderr)
    return MISTAKE
