"""Show a page of the documentation, or list the pages.

  spanbert-jax docs
  spanbert-jax docs finetuning

On a terminal a page opens in a pager ($PAGER, or `less`); elsewhere it is printed.
"""
import argparse
import os

import rich.markdown

from spanbert_jax.cluster.exit_codes import DONE
from spanbert_jax.common.console import make_console
from spanbert_jax.common.errors import UserError, suggestion
from spanbert_jax.docs import pages, summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this command."""
    parser.add_argument("page", nargs="?", metavar="PAGE", help="name of the page; without it all pages are listed")


def run(args: argparse.Namespace) -> int:
    """Prints the list of pages, or one page."""
    found = pages()
    if args.page is None:
        width = max(map(len, found))
        print("\n".join(f"{name:{width}}  {summary(path)}" for name, path in found.items()))
        return DONE
    name = args.page.removesuffix(".md")
    if name not in found:
        raise UserError(f"unknown page {args.page!r}; {suggestion(name, found)}allowed: {', '.join(found)}")
    page = rich.markdown.Markdown(found[name].read_text(encoding="utf-8"))
    console = make_console()
    if console.is_terminal:
        os.environ.setdefault("LESS", "-RFX")  # colours; no pager for a page that fits the screen
        with console.pager(styles=True):
            console.print(page)
    else:
        console.print(page)
    return DONE
