"""Files that are never seen half-written."""
from __future__ import annotations

import os
import pathlib


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file so that it is never seen half-written."""
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
