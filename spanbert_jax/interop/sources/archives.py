"""Unpacks archives of models: the files that are wanted, within limits, and nothing outside a directory."""
import gzip
import io
import os
import pathlib
import shutil
import tarfile
from collections.abc import Callable

from spanbert_jax.common.errors import UserError

# Weights shrink by a half at most when they are compressed. A megabyte is the padding of an archive of small files.
_MAX_RATIO, _PADDING = 20, 1 << 20
_MAX_MEMBERS = 10_000
_MAX_HEADER = 1 << 20  # bytes of a name or of other fields of a member, which are read into memory
_GZIP_START = b"\x1f\x8b"


def extract(archive: pathlib.Path, directory: pathlib.Path, is_wanted: Callable[[str], bool]) -> None:
    """Writes the wanted files of a .tar or .tar.gz into a directory, without their folders.

    Links and other special members are left out.

    Args: is_wanted: of the name of a file, without its folders.

    Raises:
      UserError: the archive is damaged, unpacks to more than 20 times its size, or holds two files of one name.
      OSError: a file cannot be written.
    """
    try:
        with open(archive, "rb") as file:
            compressed = file.read(len(_GZIP_START)) == _GZIP_START
            file.seek(0)
            with gzip.GzipFile(fileobj=file) if compressed else file as stream:
                limited = _Limited(stream, _MAX_RATIO * archive.stat().st_size + _PADDING)
                with tarfile.open(fileobj=limited, mode="r:") as members:
                    for number, member in enumerate(members):
                        if number == _MAX_MEMBERS:
                            raise _Unusual(f"more than {_MAX_MEMBERS:,} members")
                        _extract_member(archive, members, member, directory, is_wanted)
                while limited.read(_MAX_HEADER):  # to the end, where the checksum is
                    pass
    except _Unusual as error:
        raise UserError(f"{archive}: {error}; unpack it and give the folder of the model") from None
    except gzip.BadGzipFile as error:
        raise _damaged(archive, error) from None
    except (OSError, UserError):
        raise
    except Exception as error:  # damaged archives raise nearly anything
        raise _damaged(archive, error) from None


def _extract_member(archive: pathlib.Path, members: tarfile.TarFile, member: tarfile.TarInfo, directory: pathlib.Path,
                    is_wanted: Callable[[str], bool]) -> None:
    name = pathlib.PurePosixPath(member.name).name
    # Names that begin with a dot are of the Finder.
    if not member.isfile() or name.startswith(".") or not is_wanted(name):
        return
    if member.issparse():
        raise _Unusual(f"{name} in it is a sparse file")
    if (directory / name).exists():
        raise _Unusual(f"two files {name} in it")
    source = members.extractfile(member)
    assert source is not None  # it is a file
    with open(directory / name, "xb") as target:
        shutil.copyfileobj(source, target)
    if target_size := member.size - (directory / name).stat().st_size:
        raise EOFError(f"{name} lacks {target_size:,} bytes")


def _damaged(archive: pathlib.Path, error: Exception) -> UserError:
    return UserError(f"{archive}: cannot be unpacked ({' '.join(str(error).split())}); fetch it again")


class _Unusual(Exception):
    """What an archive of a model does not have."""


class _Limited(io.BufferedIOBase):
    """A file that is read up to a limit, and never much at once."""

    def __init__(self, file: io.BufferedIOBase | gzip.GzipFile, limit: int):
        self._file, self._limit = file, limit

    def tell(self) -> int:
        """The place of the next byte."""
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        """Reads bytes. Raises _Unusual if they are too many."""
        if size is None or not 0 <= size <= _MAX_HEADER:
            raise _Unusual(f"a header of {size:,} bytes in it")
        self._check(self.tell() + size)
        return self._file.read(size)

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a place from the start. Raises _Unusual if it is too far."""
        self._check(place)
        return self._file.seek(place, whence)

    def _check(self, place: int) -> None:
        if place > self._limit + _MAX_HEADER:  # that is read beyond the end
            raise _Unusual(f"it unpacks to more than {self._limit:,} bytes, {_MAX_RATIO} times its size")
