"""What lies in WORKDIR/checkpoints, by name.

    STEP                       a step: whole, with its manifest
    integrity-STEP.json        its manifest
    STEP.saving*               being written
    STEP.deleting              being deleted
    STEP.unsound[-N]           set aside, with its manifest in STEP.unsound.json and the reason in STEP.unsound.txt

Every change is one rename that makes a name of the first kind come or go, so that whatever a kill leaves half-done
bears another name. A step comes after its manifest and goes before it.
"""
from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil

from spanbert_jax.common.files import sync_directory

FOLDER = "checkpoints"
STATE, METADATA = "state", "about"

_STEP = re.compile(r"0|[1-9][0-9]*")
_MANIFEST = re.compile(r"integrity-([0-9]+)\.json")
# What only a killed process leaves, among it the names that Orbax gives.
_REMAINS = re.compile(
    r"[0-9]+(\.saving|\.deleting|\.orbax-checkpoint-tmp)\b.*|integrity-[0-9]+\.json\.tmp|writable\.tmp")
_SET_ASIDE = re.compile(r"([0-9]+)\.unsound(-[0-9]+)?")
_SAVING = re.compile(r"([0-9]+)\.saving\b.*")


def list_steps(folder: pathlib.Path) -> list[int]:
    """The steps that are whole, sound or not, in order. None where there is no folder."""
    return sorted(int(entry.name) for entry in _entries(folder) if _STEP.fullmatch(entry.name) and entry.is_dir())


def list_saving(folder: pathlib.Path) -> list[int]:
    """The steps that are being saved, or were when their run was killed, in order."""
    return sorted({int(saving.group(1)) for entry in _entries(folder) if (saving := _SAVING.fullmatch(entry.name))})


def list_quarantined(folder: pathlib.Path) -> list[str]:
    """The names of the steps that were set aside, in order of their steps."""
    names = [entry.name for entry in _entries(folder) if _SET_ASIDE.fullmatch(entry.name)]
    return sorted(names, key=lambda name: (quarantined_step(name), name))


def quarantined_step(name: str) -> int:
    """The step that lies under a name of `list_quarantined`."""
    return int(_SET_ASIDE.fullmatch(name).group(1))


def manifest_path(folder: pathlib.Path, step: int) -> pathlib.Path:
    """Where the manifest of a step is."""
    return folder / f"integrity-{step}.json"


def saving_path(folder: pathlib.Path, step: int) -> pathlib.Path:
    """Where a step is written until its manifest is there."""
    return folder / f"{step}.saving"


def publish(folder: pathlib.Path, step: int) -> None:
    """Makes a written step, whose manifest is there, one of the steps."""
    os.rename(saving_path(folder, step), folder / str(step))
    sync_directory(folder)


def quarantine(folder: pathlib.Path, step: int, reason: str) -> str:
    """Renames a step that is not to be believed, and its manifest. Returns its new name."""
    name, count = f"{step}.unsound", 1
    while os.path.lexists(folder / name):
        count += 1
        name = f"{step}.unsound-{count}"
    # The step last: without its manifest it is as unsound as before, and is set aside by the next start.
    with contextlib.suppress(OSError):  # a full disk; it has been said, too
        (folder / f"{name}.txt").write_text(reason + "\n", encoding="utf-8")
    if manifest_path(folder, step).exists():
        os.rename(manifest_path(folder, step), folder / f"{name}.json")
    os.rename(folder / str(step), folder / name)
    return name


def quarantine_reason(folder: pathlib.Path, name: str) -> str:
    """The reason for which a step lies under a name of `list_quarantined`."""
    try:
        return " ".join((folder / f"{name}.txt").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return "not told"


def remove(folder: pathlib.Path, step: int) -> None:
    """Deletes a step and its manifest."""
    doomed = folder / f"{step}.deleting"
    if doomed.exists():
        shutil.rmtree(doomed)
    os.rename(folder / str(step), doomed)
    manifest_path(folder, step).unlink(missing_ok=True)
    shutil.rmtree(doomed)


def remove_remains(folder: pathlib.Path) -> None:
    """Deletes what killed processes and failed saves left half-done. Nothing may be being saved."""
    steps = set(list_steps(folder))
    for entry in _entries(folder):
        manifest = _MANIFEST.fullmatch(entry.name)
        if _REMAINS.fullmatch(entry.name) or manifest and int(manifest.group(1)) not in steps:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


def _entries(folder: pathlib.Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
