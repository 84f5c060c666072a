"""`spanbert-jax VERB ...`: finds the verb, runs it, and turns a user's mistake into one line."""
from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from spanbert_jax.errors import RunFailed, UserError

VERBS = {
    "prepare": "turn text into rows to train on",
    "train": "pretrain what a config describes, or go on with it",
    "evaluate": "measure a trained network on held-out rows",
}
# What the shell sees of a wrong field or file, of Ctrl-C, and of a failed run.
MISTAKE, INTERRUPTED, FAILED = 2, 130, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] not in VERBS:
        return _without_verb(argv)
    verb = importlib.import_module(f"spanbert_jax.commands.{argv[0]}")
    parser = argparse.ArgumentParser(
        prog=f"spanbert-jax {argv[0]}", description=verb.__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    verb.add_arguments(parser)
    try:
        return verb.run(verb.parse(parser, argv[1:]) if hasattr(verb, "parse") else parser.parse_args(argv[1:]))
    except UserError as error:
        return _tell(argv[0], error, MISTAKE)
    except RunFailed as error:
        return _tell(argv[0], error, FAILED)
    except KeyboardInterrupt:
        return _tell(argv[0], "interrupted; the same command goes on", INTERRUPTED)


def _tell(verb: str, what: object, status: int) -> int:
    print(f"spanbert-jax {verb}: {what}", file=sys.stderr)
    return status


def _without_verb(argv: Sequence[str]) -> int:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:{width}}  {what}" for verb, what in VERBS.items())
    help_text = (f"usage: spanbert-jax VERB ...\n\n{verbs}\n\n`spanbert-jax VERB --help` tells more. To begin:\n"
                 "  spanbert-jax train --config configs/quickstart.py --workdir runs/quickstart")
    if argv and argv[0] in ("-h", "--help"):
        print(help_text)
        return 0
    problem = f"unknown verb {argv[0]!r}; allowed: {', '.join(VERBS)}" if argv else "no verb given"
    print(f"spanbert-jax: {problem}\n{help_text}", file=sys.stderr)
    return MISTAKE
