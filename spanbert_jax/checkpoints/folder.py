"""Names in WORKDIR/checkpoints.

    STEP                       a complete step
    integrity-STEP.json        its manifest
    STEP.saving*               a step that is being written
    STEP.deleting              a step that is being deleted
    STEP.unsound[-N]           a corrupt step that was set aside: its manifest is STEP.unsound.json, the reason is in
                               STEP.unsound.txt

A step appears and disappears by one rename, so that everything a killed process leaves incomplete has another name.
The manifest is written before the step appears, and deleted after it disappears.
"""
import contextlib
import os
import pathlib
import re
import shutil

from spanbert_jax.common.files import sync_directory, write_text

FOLDER = "checkpoints"
STATE, METADATA = "state", "about"

_STEP = re.compile(r"0|[1-9][0-9]*")
_MANIFEST = re.compile(r"integrity-([0-9]+)\.json")
# Names that only a killed process leaves, including those of Orbax and of earlier versions.
_LEFTOVERS = re.compile(
    r"[0-9]+(\.saving|\.deleting|\.orbax-checkpoint-tmp)\b.*|integrity-[0-9]+\.json\.tmp|writable\.tmp"
    r"|\.(integrity-[0-9]+\.json|writable|[0-9]+\.unsound(-[0-9]+)?\.txt)\.[0-9a-f]{8}\.tmp")
_QUARANTINED = re.compile(r"([0-9]+)\.unsound(-[0-9]+)?")
_SAVING = re.compile(r"([0-9]+)\.saving\b.*")


def list_steps(folder: pathlib.Path) -> list[int]:
    """Returns the complete steps in order, valid or corrupt; [] if there is no folder."""
    return sorted(int(entry.name) for entry in _entries(folder) if _STEP.fullmatch(entry.name) and _is_folder(entry))


def list_saving(folder: pathlib.Path) -> list[int]:
    """Returns the steps, in order, that are being saved or were when their run was killed."""
    return sorted({int(saving.group(1)) for entry in _entries(folder) if (saving := _SAVING.fullmatch(entry.name))})


def list_quarantined(folder: pathlib.Path) -> list[str]:
    """Returns the names of the steps that were set aside, ordered by step."""
    found = [name for entry in _entries(folder) if (name := _QUARANTINED.fullmatch(entry.name))]
    return [name[0] for name in sorted(found, key=lambda name: (int(name[1]), name[0]))]


def manifest_path(folder: pathlib.Path, step: int) -> pathlib.Path:
    """Returns the path of the manifest of a step."""
    return folder / f"integrity-{step}.json"


def saving_path(folder: pathlib.Path, step: int) -> pathlib.Path:
    """Returns the path of a step while it is being written."""
    return folder / f"{step}.saving"


def publish(folder: pathlib.Path, step: int) -> None:
    """Gives a written step its name. Its manifest must exist."""
    os.rename(saving_path(folder, step), folder / str(step))
    sync_directory(folder)


def quarantine(folder: pathlib.Path, step: int, reason: str) -> str:
    """Renames a corrupt step and its manifest. Returns the new name."""
    name, count = f"{step}.unsound", 1
    while any(os.path.lexists(folder / f"{name}{ending}") for ending in ("", ".txt", ".json")):
        count += 1
        name = f"{step}.unsound-{count}"
    # The step is renamed last: without its manifest it counts as corrupt, and the next start sets it aside.
    with contextlib.suppress(OSError):  # a full disk; the reason is logged, too
        write_text(folder / f"{name}.txt", reason + "\n")
    if manifest_path(folder, step).exists():
        os.rename(manifest_path(folder, step), folder / f"{name}.json")
    os.rename(folder / str(step), folder / name)
    return name


def quarantine_reason(folder: pathlib.Path, name: str) -> str:
    """Returns why a step of `list_quarantined` was set aside."""
    try:
        return " ".join((folder / f"{name}.txt").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return "unknown"


def remove(folder: pathlib.Path, step: int) -> None:
    """Deletes a step and its manifest."""
    deleting = folder / f"{step}.deleting"
    _remove_entry(deleting)
    os.rename(folder / str(step), deleting)
    manifest_path(folder, step).unlink(missing_ok=True)
    _remove_entry(deleting)


def remove_all(folder: pathlib.Path) -> None:
    """Deletes every step and leftover, and the folder if nothing else is in it. Steps that were set aside stay."""
    if folder.is_symlink():  # see `Checkpointer`
        return
    for step in list_steps(folder):
        remove(folder, step)
    remove_leftovers(folder)
    with contextlib.suppress(OSError):
        folder.rmdir()


def remove_leftovers(folder: pathlib.Path) -> None:
    """Deletes what killed processes and failed saves left. Nothing may be being saved meanwhile."""
    steps = set(list_steps(folder))
    for entry in _entries(folder):
        manifest = _MANIFEST.fullmatch(entry.name)
        if _LEFTOVERS.fullmatch(entry.name) or (manifest and int(manifest.group(1)) not in steps):
            _remove_entry(pathlib.Path(entry.path))


def _remove_entry(path: pathlib.Path) -> None:
    """Deletes a directory, a file, or a link, but not what a link points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _entries(folder: pathlib.Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
