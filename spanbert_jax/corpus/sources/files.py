"""Text files: gzip, byte-order marks, UTF-8, and blocks of bounded size."""
import contextlib
import gzip
from collections.abc import Iterator
from typing import IO, Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.corpus.documents import MAX_DOCUMENT_CHARACTERS


@contextlib.contextmanager
def open_file(path: str, issues: DataIssues) -> Iterator[IO[bytes]]:
    """Opens a file, decompresses it if its first bytes are those of gzip, and skips a byte-order mark."""
    with open(path, "rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        opened: Any = gzip.open(raw) if is_gzip else contextlib.nullcontext(raw)  # noqa: SIM115  # closed below
        with opened as stream:
            mark = stream.read(3)
            if mark[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise UserError(f"source {path}: looks like UTF-16; convert it to UTF-8")
            if mark == b"\xef\xbb\xbf":
                issues.add("byte-order marks removed", path)
            else:
                stream.seek(0)
            yield stream


def decode_text(data: bytes, place: str, issues: DataIssues) -> str:
    """Decodes UTF-8 and converts line ends to `\\n`. Invalid bytes become U+FFFD, which the tokenizer drops."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
        issues.add("invalid UTF-8 sequences replaced", place, text.count("\ufffd") - data.count(b"\xef\xbf\xbd"))
    if "\r" in text:
        issues.add("files with carriage returns", place)
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def text_blocks(path: str, issues: DataIssues) -> Iterator[str]:
    """Yields the text of a file in blocks of bounded size, which end at a line end, else at a space if possible."""
    with open_file(path, issues) as stream:
        rest, last_byte = b"", b"\n"
        while data := stream.read(MAX_DOCUMENT_CHARACTERS - len(rest)):
            last_byte = data[-1:]
            data = rest + data
            end = len(data)
            if len(data) == MAX_DOCUMENT_CHARACTERS:
                end = max(data.rfind(b"\n"), -1) + 1 or data.rfind(b" ") + 1 or _end_of_last_character(data)
            yield decode_text(data[:end], path, issues)
            rest = data[end:]
        if rest:
            yield decode_text(rest, path, issues)
        if last_byte != b"\n":
            issues.add("files without a last newline", path)


def _end_of_last_character(data: bytes) -> int:
    """Returns the length of `data` without an incomplete UTF-8 character at its end."""
    for back in range(1, min(4, len(data)) + 1):
        if data[-back] & 0xC0 != 0x80:  # not a continuation byte: the last character begins here
            return len(data) - back if data[-back] >= 0xC0 else len(data)
    return len(data)
