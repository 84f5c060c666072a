"""Settings of a task on the command lines of verbs that use a fine-tuned network."""
from __future__ import annotations

import argparse
import json
from typing import Any


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--set`."""
    parser.add_argument("--set", action="append", default=[], type=_setting, metavar="FIELD=VALUE",
                        help="a setting of the task that is to be another than in training, such as beams=1 where "
                             "texts are written; may be given again")


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: write FIELD=VALUE, with a number, true, false, a text or a list")
    try:
        return name, json.loads(value.lower() if value.lower() in ("true", "false") else value)
    except ValueError:
        return name, value
