"""Output for people: consoles and tables that look the same in every command."""
import io
from collections.abc import Collection, Sequence
from typing import Any

import rich.box
import rich.console
import rich.table

# Width where the output goes to a file or a pipe, which has no width of its own: wide enough for every table.
_FILE_WIDTH = 120
_TEXT_WIDTH = 200


def make_console(stderr: bool = False, quiet: bool = False) -> rich.console.Console:
    """A console that prints text as it is, without markup, and is 120 columns wide where it is not a terminal.

    Args:
      stderr: prints to standard error, and wraps no line at the terminal's width.
      quiet: prints nothing.
    """
    console = rich.console.Console(stderr=stderr, soft_wrap=stderr, quiet=quiet, highlight=False, markup=False,
                                   emoji=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    return console


def make_table(*columns: str, title: str | None = None, right: Collection[str] = (),
               **options: Any) -> rich.table.Table:
    """An empty table with these headings, those in `right` aligned at the right; `options` of `rich.table.Table`."""
    table = rich.table.Table(title=title, title_justify="left", **options)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    return table


def table_text(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as plain text, as wide as needed: the first column aligned at the left, all others at the right."""
    table = make_table(*columns, right=columns[1:], box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        column.no_wrap = True
    for row in rows:
        table.add_row(*row)
    text = io.StringIO()
    rich.console.Console(file=text, width=_TEXT_WIDTH, force_terminal=False).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n")
