"""Pages of documentation in Markdown, with their images and the script that draws them."""
import pathlib

FOLDER = pathlib.Path(__file__).parent
# The order in which a newcomer may want to read them; pages that are not named follow.
_ORDER = ("choosing", "pretraining", "optimizing", "finetuning", "generation", "weights", "tasks", "training_loop",
          "planning", "reliability", "config", "architecture", "faithfulness", "results", "performance", "faq",
          "glossary")


def pages() -> dict[str, pathlib.Path]:
    """File of each page by its name, in reading order."""
    found = {path.stem: path for path in sorted(FOLDER.glob("*.md"))}
    return {name: found[name] for name in sorted(found, key=lambda name: (name not in _ORDER, _rank(name), name))}


def summary(page: pathlib.Path) -> str:
    """First sentence of a page: what the page is about."""
    title, text, *_ = page.read_text(encoding="utf-8").split("\n\n", 2)
    if not title.startswith("# "):
        raise ValueError(f"{page.name}: the first line must be a title, '# ...'")
    return " ".join(text.split()).partition(". ")[0].rstrip(".")


def _rank(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else 0
