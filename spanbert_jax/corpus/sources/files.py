"""Text files: compression, kinds and encodings by the first bytes, and blocks of bounded size."""
import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import GIT_LFS_POINTER
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.corpus.documents import MAX_DOCUMENT_CHARACTERS

MAX_RECORD_BYTES = 64 << 20  # of a line, or of another part of a file that is in memory at once
_HEAD_BYTES = 1 << 16  # the start of a file, which tells its kind and encoding
# Compression makes texts 3 to 20 times shorter. More than this, beyond some size, is an attack.
_MOST_UNPACKED, _FREE_BYTES = 100, 32 << 20
_COMPRESSED_NAME = re.compile(r"\.(?:gz|bz2|xz)$", re.IGNORECASE)
_COMPRESSIONS: tuple[tuple[re.Pattern[bytes], Callable[[Any], Any]], ...] = (
    (re.compile(rb"\x1f\x8b"), gzip.open), (re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"), bz2.open),
    (re.compile(rb"\xfd7zXZ\0"), lzma.open))
_UNPACK, _TO_JSON = "unpack it and give the files in it", "write its rows as JSON lines"
_EXTRACT, _TO_UTF8 = "extract its text, or leave it out", "convert it: iconv -f {0} -t UTF-8 FILE > NEW"
_FIND_ENCODING = ("if it is text, find its encoding, such as GB18030, BIG5, SHIFT_JIS, EUC-KR or WINDOWS-1252, and "
                  + _TO_UTF8.format("ENCODING"))
# First bytes of files that are not text in UTF-8, what they are, and what to do.
_OTHER_KINDS = {start: (kind, remedy) for start, kind, remedy in (
    (b"\xff\xfe\0\0", "text in UTF-32", _TO_UTF8.format("UTF-32")),
    (codecs.BOM_UTF16_LE, "text in UTF-16", _TO_UTF8.format("UTF-16")),
    (codecs.BOM_UTF16_BE, "text in UTF-16", _TO_UTF8.format("UTF-16")),
    (b"\x1f\x8b", "data that is compressed twice", "decompress it: gzip -d FILE"),
    (b"\x28\xb5\x2f\xfd", "zstd data", "decompress it: zstd -d FILE"),
    (b"\x04\x22\x4d\x18", "lz4 data", "decompress it: lz4 -d FILE"),
    (b"PK\x03\x04", "a zip archive (.zip, .docx, .xlsx, .epub)", _UNPACK), (b"PK\x05\x06", "a zip archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-zip archive", _UNPACK), (b"Rar!\x1a", "a RAR archive", _UNPACK),
    (b"PAR1\x15", "a Parquet file", _TO_JSON), (b"ARROW1\0", "an Arrow file", _TO_JSON),
    (b"\xff\xff\xff\xff", "an Arrow stream, as `datasets` stores it", _TO_JSON),
    (b"WARC/1.", "a WARC archive", _EXTRACT),
    (b"Obj\x01", "an Avro file", _TO_JSON), *((bytes((0x80, n)), "a Python pickle", _TO_JSON) for n in range(2, 6)),
    (b"SQLite format 3\0", "an SQLite database", _TO_JSON), (b"\x89HDF\r\n", "an HDF5 file", _TO_JSON),
    (b"\x93NUMPY", "a NumPy file", _TO_JSON), (b"%PDF-", "a PDF document", _EXTRACT),
    (b"\xd0\xcf\x11\xe0", "an office document", _EXTRACT), (b"{\\rtf", "an RTF document", _EXTRACT),
    (b"\x89PNG\r\n", "a PNG image", _EXTRACT), (b"\xff\xd8\xff", "a JPEG image", _EXTRACT),
    (b"GIF8", "a GIF image", _EXTRACT),
    (GIT_LFS_POINTER, "a Git LFS pointer", "get its file: git lfs pull"))}
_OTHER_STARTS = re.compile(b"|".join(map(re.escape, _OTHER_KINDS)))
_ISO_2022 = re.compile(rb"\x1b\$(?:[@AB]|\(D|\)[ACG])")  # switches from ASCII to other characters
_ISO_2022_NAMES = {b"\x1b$)A": "ISO-2022-CN", b"\x1b$)G": "ISO-2022-CN", b"\x1b$)C": "ISO-2022-KR"}
_MOST_INVALID = 1 / 200  # share of the bytes of a text, besides three, that are replaced and counted


def without_compression(path: str) -> str:
    """The path of a file without an ending of compression: "a.txt" for "a.txt.gz", "a.txt.bz2" and "a.txt.xz"."""
    return _COMPRESSED_NAME.sub("", path)


@contextlib.contextmanager
def readable_errors(path: str) -> Iterator[None]:
    """Turns errors of reading a file into one-line errors."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: broken compressed data ({error}); fetch or write it again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


@contextlib.contextmanager
def open_file(path: str, issues: DataIssues) -> Iterator[IO[bytes]]:
    """Opens a text file behind its byte-order mark. If its first bytes are those of gzip, bzip2 or xz, decompresses it.

    Raises:
      UserError: it cannot be read, or is not text in UTF-8: a binary file, or text in another encoding.
    """
    with readable_errors(path), open(path, "rb") as raw:
        start = raw.read(16)
        raw.seek(0)
        opener = next((opener for begins, opener in _COMPRESSIONS if begins.match(start)), contextlib.nullcontext)
        with opener(raw) as stream:
            head = stream.read(_HEAD_BYTES)
            _require_utf8(head, path)
            mark = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
            if mark:
                issues.add("byte-order marks removed", path)
            stream.seek(mark)
            yield stream if stream is raw else io.BufferedReader(_Unpacked(stream, path), 1 << 20)


class _Unpacked(io.RawIOBase):
    """The bytes of a compressed file, which must not be too many for its size."""

    def __init__(self, stream: IO[bytes], path: str):
        self._stream, self._path = stream, path
        self._left = max(_FREE_BYTES, _MOST_UNPACKED * os.path.getsize(path))

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads the next bytes. Raises UserError if they are too many."""
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise UserError(f"{self._path}: its data unpack to more than {_MOST_UNPACKED} times their size, which no "
                            "text does; unpack it, and give the file in it")
        buffer[:len(data)] = data
        return len(data)


def first_characters(path: str) -> str:
    """The first 1,024 bytes of a text file, without white space at their start. Raises UserError like `open_file`."""
    with open_file(path, DataIssues()) as stream:
        while block := stream.read(1024):
            if block.strip():
                return block.decode("utf-8", "ignore").lstrip()
    return ""


def _require_utf8(head: bytes, path: str) -> None:
    """Raises UserError unless a file that starts with `head` is text in UTF-8, perhaps with a few invalid bytes."""
    if match := _OTHER_STARTS.match(head):
        kind, remedy = _OTHER_KINDS[match[0]]
        raise UserError(f"{path}: {kind}, which is not read; {remedy}")
    if head[257:262] == b"ustar":
        raise UserError(f"{path}: a tar archive, which is not read; {_UNPACK}")
    if match := _ISO_2022.search(head):
        encoding = _ISO_2022_NAMES.get(match[0], "ISO-2022-JP")
        raise UserError(f"{path}: text in {encoding}, which is not read; {_TO_UTF8.format(encoding)}")
    if head.isascii() and 0 not in head:
        return
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(head)  # the last character may be incomplete
    nuls = head[::2].count(0), head[1::2].count(0)  # at even and at odd positions
    invalid = text.count("\ufffd") - head.count(b"\xef\xbf\xbd") + sum(nuls)
    if invalid <= 3 + len(head) * _MOST_INVALID:
        return
    if max(nuls) > len(head) / 8 and max(nuls) > 20 * min(nuls):
        encoding = "UTF-16LE" if nuls[1] > nuls[0] else "UTF-16BE"
        raise UserError(f"{path}: text in UTF-16, which is not read; {_TO_UTF8.format(encoding)}")
    raise UserError(f"{path}: not text in UTF-8 ({invalid:,} invalid or NUL bytes in the first {len(head):,}); "
                    f"{_FIND_ENCODING}")


class Decoder:
    """Decodes the text of one file, given part by part, and counts in `issues` what it repairs."""

    def __init__(self, path: str, issues: DataIssues):
        self._path, self._issues = path, issues
        self._line = 1  # of the next part
        self._first_invalid = ""  # file and line
        self._invalid = self._bytes = 0  # invalid and all bytes from there on
        self._has_returns = False

    def __call__(self, data: bytes, record: int | None = None) -> str:
        """Decodes UTF-8 and converts line ends to `\\n`. Invalid bytes become U+FFFD, which the tokenizer drops.

        Args:
          data: ends with a whole character and line end.
          record: its number, to locate invalid bytes; None for the number of the line.

        Raises:
          UserError: too many bytes are invalid from the first such byte on: the text is in another encoding.
        """
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            text = data.decode("utf-8", "replace")
            line = self._line + data.count(b"\n", 0, error.start)
            self._first_invalid = self._first_invalid or f"{self._path}:{line if record is None else record}"
            self._bytes += len(data) - (0 if self._invalid else error.start)
            self._count_invalid(text.count("\ufffd") - data.count(b"\xef\xbf\xbd"))
        else:
            if self._invalid:
                self._bytes += len(data)
        if "\r" in text:
            text = self._without_returns(text)
        self._line += text.count("\n")
        return text

    def _count_invalid(self, count: int) -> None:
        self._issues.add("invalid UTF-8 sequences replaced", self._first_invalid, count)
        self._invalid += count
        if self._invalid > 3 + max(self._bytes, _HEAD_BYTES) * _MOST_INVALID:
            raise UserError(f"{self._first_invalid}: not text in UTF-8 from this line on ({self._invalid:,} invalid "
                            f"bytes in {self._bytes:,}); {_FIND_ENCODING}")

    def _without_returns(self, text: str) -> str:
        text = text.replace("\r\n", "\n")
        if "\r" in text and not self._has_returns:
            self._has_returns = True
            self._issues.add("files with single carriage returns, read as line ends", self._path)
        return text.replace("\r", "\n")


def text_lines(stream: IO[bytes], path: str, issues: DataIssues) -> Iterator[str]:
    """Yields the lines of an open file with their line ends as `\\n`. Raises UserError if a line is too long."""
    decode = Decoder(path, issues)
    for number, data in enumerate(iter(lambda: stream.readline(MAX_RECORD_BYTES + 1), b""), 1):
        if len(data) > MAX_RECORD_BYTES:
            raise UserError(f"{path}:{number}: a line of more than {MAX_RECORD_BYTES >> 20} MiB; divide it, or read a "
                            "text with --format documents, which has no limit")
        text = decode(data)
        if text.find("\n", 0, -1) < 0:
            yield text
        else:  # its lines end with carriage returns only
            yield from io.StringIO(text)


def text_blocks(path: str, issues: DataIssues) -> Iterator[str]:
    """Yields the text of a file in blocks of bounded size, which end at a line end, else at a space if possible."""
    with open_file(path, issues) as stream:
        decode, rest, last_byte = Decoder(path, issues), b"", b"\n"
        while data := stream.read(MAX_DOCUMENT_CHARACTERS - len(rest)):
            last_byte = data[-1:]
            data = rest + data
            end = len(data)
            if len(data) == MAX_DOCUMENT_CHARACTERS:
                end = max(data.rfind(b"\n"), -1) + 1 or data.rfind(b" ") + 1 or _end_of_last_character(data)
            yield decode(data[:end])
            rest = data[end:]
        if rest:
            yield decode(rest)
        if last_byte != b"\n":
            issues.add("files without a last newline", path)


def _end_of_last_character(data: bytes) -> int:
    """Returns the length of `data` without an incomplete UTF-8 character at its end."""
    for back in range(1, min(4, len(data)) + 1):
        if data[-back] & 0xC0 != 0x80:  # not a continuation byte: the last character begins here
            return len(data) - back if data[-back] >= 0xC0 else len(data)
    return len(data)
