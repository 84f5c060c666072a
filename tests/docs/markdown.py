"""README and pages as the tests read them: blocks of code, inline code, links and headings."""
from __future__ import annotations

import ast
import dataclasses
import pathlib
import re
import shlex

from spanbert_jax.docs import pages
from tests.runs import ROOT

PAGES: dict[str, pathlib.Path] = {"README": ROOT / "README.md", **pages()}
LANGUAGES = ("sh", "python", "text", "mermaid")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page."""
    page: str
    line: int
    language: str
    text: str

    def commands(self) -> list[list[str]]:
        """The words of each shell command of the block; `&&` and line ends separate commands."""
        found: list[list[str]] = []
        for line in self.text.replace("\\\n", " ").splitlines():
            command: list[str] = []
            for word in [*shlex.split(line, comments=True), "&&"]:
                if word != "&&":
                    command.append(word)
                elif command:
                    found.append(command)
                    command = []
        return found


def text_of(page: str) -> str:
    """The whole text of a page."""
    return PAGES[page].read_text(encoding="utf-8")


def docstring_block(path: pathlib.Path) -> Block:
    """The commands that a module's docstring shows: its indented lines."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=False) or ""
    shown = re.findall(r"^ {2,}(?:[A-Z_]+=\S+ )?spanbert-jax .*(?:(?<=\\)\n.*)*$", text, re.MULTILINE)
    return Block(path.name, 1, "sh", "\n".join(shown) + "\n")


def blocks(page: str, language: str | None = None) -> list[Block]:
    """The fenced blocks of a page, of one language or of all."""
    text = text_of(page)
    found = [Block(page, text[:match.start()].count("\n") + 1, match[1], match[2]) for match in _FENCE.finditer(text)]
    return [block for block in found if language in (None, block.language)]


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", text_of(page))


def inline_code(page: str) -> list[str]:
    """Every `code` of the prose."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def links(page: str) -> list[str]:
    """Targets of the links and images of a page, without those into the web."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [target for target in targets if not target.startswith(("http://", "https://"))]


def anchors(path: pathlib.Path) -> set[str]:
    """Anchors of the headings of a file, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
