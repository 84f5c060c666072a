"""List the checkpoints of a run: size, time, whether they are intact, and why they are kept.

  spanbert-jax checkpoints --workdir runs/quickstart
  spanbert-jax checkpoints --workdir runs/quickstart --verify

By default only the sizes of files are compared with those that were saved; --verify compares every byte. Nothing is
changed, and the run may save meanwhile. The exit status is 1 if a checkpoint is corrupt, quarantined ones not counted.
"""
import argparse
import datetime
import json
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

from spanbert_jax.checkpoints import folder as names
from spanbert_jax.checkpoints.manifest import Manifest, read_manifest
from spanbert_jax.checkpoints.manifest import verify as verify_step
from spanbert_jax.checkpoints.retention import retained_steps
from spanbert_jax.commands.verify import reading_progress
from spanbert_jax.common.console import make_console, make_table
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_bytes
from spanbert_jax.common.manifest import ManifestError, folder_size
from spanbert_jax.common.paths import user_path


def list_checkpoints(workdir: str | os.PathLike, *, verify: bool = False,
                     on_bytes: Callable[[int], None] = lambda count: None) -> dict[str, Any]:
    """Lists the checkpoints of a run.

    Args:
      verify: compare every byte with what was saved, not only the sizes of files.
      on_bytes: called with the number of bytes after each read.

    Returns:
      "steps", each with "step", "bytes", "saved_at" in seconds since 1970, "unsound" (why it is corrupt, or None) and
      "kept" (why retention keeps it); "set_aside", the quarantined ones, each with "name", "bytes" and "unsound";
      "saving", the steps being written.

    Raises:
      UserError: there are no checkpoints.
    """
    folder = _folder(workdir)
    steps = names.list_steps(folder)
    manifests = {step: _manifest(folder, step) for step in steps}
    newest = next((manifest for manifest in reversed(manifests.values()) if manifest), None)
    reasons = retained_steps(steps, newest.keep, newest.keep_every, newest.best) if newest else {}
    listed = []
    for step, manifest in manifests.items():
        corrupt = verify_step(folder / str(step), names.manifest_path(folder, step), step, full=verify,
                              on_bytes=on_bytes)
        if corrupt and not (folder / str(step)).exists():  # the run has just deleted it
            continue
        listed.append({"step": step, "bytes": folder_size(folder / str(step)), "unsound": corrupt,
                       "saved_at": manifest and manifest.saved_at, "kept": reasons.get(step, "")})
    quarantined = [{"name": name, "bytes": folder_size(folder / name), "unsound": names.quarantine_reason(folder, name)}
                   for name in names.list_quarantined(folder)]
    return {"steps": listed, "set_aside": quarantined, "saving": names.list_saving(folder)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this command."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="workdir of the training run")
    parser.add_argument("--verify", action="store_true", help="read every byte and compare it with what was saved")
    parser.add_argument("--json", action="store_true", help="print the list as one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Lists the checkpoints, and verifies them with `--verify`."""
    found = _verify_with_progress(args.workdir) if args.verify else list_checkpoints(args.workdir)
    if args.json:
        print(json.dumps(found))
    else:
        _print(found, _folder(args.workdir), "yes" if args.verify else "sizes match")
    return 1 if any(step["unsound"] for step in found["steps"]) else 0


def _folder(workdir: str | os.PathLike) -> pathlib.Path:
    folder = user_path(workdir) / names.FOLDER
    if not folder.is_dir():
        raise UserError(f"{workdir}: no checkpoints here; give the workdir of a training run that has saved some")
    return folder


def _verify_with_progress(workdir: str) -> dict[str, Any]:
    folder = _folder(workdir)
    with reading_progress(sum(folder_size(folder / str(step)) for step in names.list_steps(folder))) as on_bytes:
        return list_checkpoints(workdir, verify=True, on_bytes=on_bytes)


def _print(found: dict[str, Any], folder: pathlib.Path, intact: str) -> None:
    table = make_table("step", "size", "saved", "intact", "kept as", title=str(folder), right=("size",))
    for step in found["steps"]:
        table.add_row(f"{step['step']:,}", format_bytes(step["bytes"]), _when(step["saved_at"]),
                      step["unsound"] or intact, step["kept"])
    for other in found["set_aside"]:
        table.add_row(other["name"], format_bytes(other["bytes"]), "", other["unsound"], "quarantined")
    console = make_console()
    console.print(table)
    if found["saving"]:
        console.print(f"being saved, or left behind by a killed run: {', '.join(map(str, found['saving']))}")
    if not found["steps"]:
        console.print("no checkpoint to continue from"
                      + (", except quarantined ones" if found["set_aside"] else " yet"))


def _manifest(folder: pathlib.Path, step: int) -> Manifest | None:
    try:
        return read_manifest(names.manifest_path(folder, step), step)
    except ManifestError:
        return None


def _when(seconds: int | None) -> str:
    try:
        return datetime.datetime.fromtimestamp(math.nan if seconds is None else seconds).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # missing, or not a valid time
        return "?"
