"""List the checkpoints of a run: how large, how old, whether they are sound and why they are kept.

  spanbert-jax checkpoints --workdir runs/quickstart
  spanbert-jax checkpoints --workdir runs/quickstart --verify

Sizes of files are compared with what was written; --verify reads and compares every byte. Nothing is altered, and the
run may be writing meanwhile. The exit status is 1 when one of the checkpoints is unsound, those set aside not counted.
"""
from __future__ import annotations

import argparse
import datetime
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import rich.progress

from spanbert_jax.checkpoints import folder as names
from spanbert_jax.checkpoints.manifest import Manifest, ManifestError, file_sizes, read_manifest, verify
from spanbert_jax.checkpoints.retention import retained_steps
from spanbert_jax.common.console import make_console, make_table
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this verb."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="of the training run")
    parser.add_argument("--verify", action="store_true", help="read every byte and compare it with what was written")
    parser.add_argument("--json", action="store_true", help="print the list as one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Lists and, if asked to, verifies."""
    folder = pathlib.Path(args.workdir) / names.FOLDER
    if not folder.is_dir():
        raise UserError(f"{args.workdir}: no checkpoints here; give the workdir of a training run that has saved some")
    found = _verify_with_progress(folder) if args.verify else survey(folder)
    if args.json:
        print(json.dumps(found))
    else:
        _print(found, folder, "yes" if args.verify else "sizes agree")
    return 1 if any(step["unsound"] for step in found["steps"]) else 0


def survey(folder: pathlib.Path, full: bool = False, on_bytes: Callable[[int], None] | None = None) -> dict[str, Any]:
    """What lies in a folder of checkpoints.

    Args:
      full: read every byte.
      on_bytes: is told of every so many bytes read.

    Returns:
      "steps", each with "step", "bytes", "saved_at" in seconds since 1970, "unsound" (why, or None) and "kept" (why);
      "set_aside", each with "name", "bytes" and "unsound"; "saving", the steps being written.
    """
    steps = names.list_steps(folder)
    manifests = {step: _manifest(folder, step) for step in steps}
    newest = next((manifest for manifest in reversed(manifests.values()) if manifest), None)
    reasons = retained_steps(steps, newest.keep, newest.keep_every, newest.best) if newest else {}
    listed = []
    for step, manifest in manifests.items():
        unsound = verify(folder / str(step), names.manifest_path(folder, step), step, full=full, on_bytes=on_bytes)
        if unsound and not (folder / str(step)).exists():  # its run has just deleted it
            continue
        listed.append({"step": step, "bytes": _size(folder / str(step)),
                       "saved_at": manifest.saved_at if manifest else None, "unsound": unsound,
                       "kept": reasons.get(step, "")})
    aside = [{"name": name, "bytes": _size(folder / name), "unsound": names.quarantine_reason(folder, name)}
             for name in names.list_quarantined(folder)]
    return {"steps": listed, "set_aside": aside, "saving": names.list_saving(folder)}


def _verify_with_progress(folder: pathlib.Path) -> dict[str, Any]:
    total = sum(_size(folder / str(step)) for step in names.list_steps(folder))
    console, began = make_console(stderr=True), time.monotonic()
    with rich.progress.Progress(
            *rich.progress.Progress.get_default_columns(), rich.progress.TransferSpeedColumn(), console=console,
            transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("verifying", total=total)
        found = survey(folder, full=True, on_bytes=lambda count: bar.advance(task, count))
        done = bar.tasks[0].completed
    seconds = max(time.monotonic() - began, 1e-9)
    console.print(f"read {format_bytes(done)} at {format_bytes(done / seconds)}/s")
    return found


def _print(found: dict[str, Any], folder: pathlib.Path, sound: str) -> None:
    table = make_table("step", "size", "saved", "sound", "kept as", title=str(folder), right=("size",))
    for step in found["steps"]:
        table.add_row(f"{step['step']:,}", format_bytes(step["bytes"]), _when(step["saved_at"]),
                      step["unsound"] or sound, step["kept"])
    for aside in found["set_aside"]:
        table.add_row(aside["name"], format_bytes(aside["bytes"]), "", aside["unsound"], "set aside")
    console = make_console()
    console.print(table)
    if found["saving"]:
        console.print(f"being written, or left by a run that was killed: {', '.join(map(str, found['saving']))}")
    if not found["steps"]:
        console.print("no checkpoint to go on from" + (", but ones set aside" if found["set_aside"] else " yet"))


def _manifest(folder: pathlib.Path, step: int) -> Manifest | None:
    try:
        return read_manifest(names.manifest_path(folder, step), step)
    except ManifestError:
        return None


def _size(folder: pathlib.Path) -> int:
    """Bytes of the files in a folder, as far as it is still there."""
    try:
        return sum(file_sizes(folder).values())
    except OSError:
        return 0


def _when(seconds: int | None) -> str:
    try:
        return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
    except (TypeError, ValueError, OverflowError, OSError):  # none, or none that a clock could have shown
        return "?"
