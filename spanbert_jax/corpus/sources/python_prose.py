"""Source "python": the English prose in this Python installation, parsed from files, which are never imported.

It consists of the `pydoc_data` help topics, and the docstrings of the standard library and the installed packages.
"""
import ast
import gzip
import inspect
import itertools
import json
import os
import pathlib
import re
import sysconfig
import warnings
from collections.abc import Callable, Iterator

from spanbert_jax.corpus.processes import map_in_order
from spanbert_jax.corpus.sources.base import CorpusFormat, SourceFile
from spanbert_jax.corpus.sources.json_lines import JSON_LINES

PYTHON = "python"
SNAPSHOT_FILE = "python.jsonl.gz"

MAX_CHARACTERS = 12_000_000
_MIN_PARAGRAPH = 60
_MIN_DOCUMENT = 200
_MAX_FILE_BYTES = 1_500_000  # larger modules are tables, not prose
_MAX_SOURCE_BYTES = 60_000_000  # of all modules together, to bound the time
_SKIPPED_FOLDERS = frozenset({"test", "tests", "testing", "idlelib", "lib2to3", "__pycache__", "site-packages",
                              "dist-packages", "_vendor", "vendor", "vendored", "node_modules"})
_CODE = re.compile(r"^\s*(>>>|\.\.\. |\.\. |:\w+|@|#|[-=*~^+|_]{3,}|\|)|[{}<>\\;]|==|->|::|https?:")
_BATCH_FILES = 50
_PLAIN_SHARE = 0.7
_TOPICS = pathlib.Path(sysconfig.get_path("stdlib"), "pydoc_data", "topics.py")
_WORD = re.compile(r"^[A-Za-z][a-z'’-]*[.,;:!?)]*$")


def write_python_prose(path: pathlib.Path) -> None:
    """Writes the prose as gzipped JSON lines {"text", "module"}, one document per module, at most about 12 MB.

    Modules come in a fixed order, the standard library first. Two processes share the work.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    left, seen = MAX_CHARACTERS, set()
    with gzip.GzipFile(path, "wb", compresslevel=6, mtime=0) as out:
        for module, paragraphs in _prose_of(_modules()):
            text = "\n\n".join(paragraph for paragraph in paragraphs if paragraph not in seen)
            if len(text) < _MIN_DOCUMENT:
                continue
            seen.update(paragraphs)  # else inherited docstrings leak into held-out modules
            out.write(json.dumps({"text": text, "module": module}).encode() + b"\n")
            left -= len(text)
            if left <= 0:
                break


def _modules() -> list[pathlib.Path]:
    """Returns the help topics, then the sorted Python files of the standard library and the installed packages."""
    found, size = [_TOPICS], 0
    for kind in ("stdlib", "purelib"):
        for folder, below, names in os.walk(sysconfig.get_path(kind)):
            below[:] = sorted(name for name in below if name not in _SKIPPED_FOLDERS and name[0] not in "._")
            for path in (pathlib.Path(folder, name) for name in sorted(names) if name.endswith(".py")):
                bytes_here = path.stat().st_size
                if bytes_here <= _MAX_FILE_BYTES and size + bytes_here <= _MAX_SOURCE_BYTES and path != _TOPICS:
                    found.append(path)
                    size += bytes_here
    return found


def _prose_of(files: list[pathlib.Path]) -> Iterator[tuple[str, list[str]]]:
    batches = [files[i:i + _BATCH_FILES] for i in range(0, len(files), _BATCH_FILES)]
    for batch, found in map_in_order(_batch_reader, batches, workers=2):
        yield from zip((path.name for path in batch), found)


def _batch_reader() -> Callable[[list[pathlib.Path]], list[list[str]]]:
    return lambda batch: [module_prose(path) for path in batch]


def module_prose(path: pathlib.Path) -> list[str]:
    """Returns the prose paragraphs of a module's docstrings (of all strings, for pydoc's topics); [] if unreadable."""
    try:
        source = path.read_text(encoding="utf-8")
        if path != _TOPICS and '"""' not in source and "'''" not in source:
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about invalid escapes in other packages
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = list(ast.walk(tree))
    if path == _TOPICS:
        strings = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    else:
        strings = list(filter(None, (ast.get_docstring(node) for node in nodes if isinstance(node, documented))))
    return list(dict.fromkeys(itertools.chain.from_iterable(map(prose_paragraphs, strings))))


def prose_paragraphs(text: str) -> Iterator[str]:
    """Yields the paragraphs of a docstring that are English sentences, each as one line.

    A change of indentation begins a paragraph. Doctests, directives, tables, signatures and short remarks are skipped.
    """
    lines = inspect.cleandoc(text).split("\n")
    for _, group in itertools.groupby(lines, key=lambda line: len(line) - len(line.lstrip()) if line.strip() else -1):
        paragraph = list(group)
        if any(_CODE.search(line) for line in paragraph):
            continue
        joined = " ".join(" ".join(paragraph).replace("`", "").split())
        words = joined.split()
        plain = sum(bool(_WORD.match(word)) for word in words)
        if (len(joined) >= _MIN_PARAGRAPH and joined[0].isupper() and joined[-1] in ".!?:)"
                and plain >= _PLAIN_SHARE * len(words)):
            yield joined


def _find(source: str, generated: pathlib.Path | None) -> SourceFile | None:
    snapshot = (generated or pathlib.Path()) / SNAPSHOT_FILE
    return SourceFile(str(snapshot), "jsonl", name=PYTHON) if source == PYTHON else None


PYTHON_PROSE = CorpusFormat(JSON_LINES.read, find=_find)
