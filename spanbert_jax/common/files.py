"""Files that are never seen half-written, and the folder for files that can be made again."""
import errno
import os
import pathlib

GIT_LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # first bytes of what stands for a file not yet fetched
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def cache_folder() -> pathlib.Path:
    """Returns this package's folder in the user's cache folder. It may not exist yet."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "spanbert_jax"


def write_text(path: pathlib.Path, text: str, sync: bool = False) -> None:
    """Writes a file under a temporary name and renames it, so that nobody sees it half-written.

    With `sync` it returns only when content and name are on the disk. If it raises OSError, an existing file is
    unchanged.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as out:
            out.write(text)
            if sync:
                out.flush()
                os.fsync(out.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if sync:
        sync_directory(path.parent)


def publish(temporary: pathlib.Path, path: pathlib.Path) -> None:
    """Renames a finished file. Raises FileExistsError if anything, such as a link, is at `path` by then."""
    try:
        os.link(temporary, path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # Without hard links: the name is taken by an empty file first, which is then replaced.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        os.replace(temporary, path)
    else:
        os.unlink(temporary)


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Flushes the names in a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
