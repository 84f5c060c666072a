"""Texts with their coreference chains in colour, as one HTML page that needs no other file."""
import heapq
import html
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from spanbert_jax.common.formatting import format_plural
from spanbert_jax.tasks.files.coreference_documents import Span

Chains = Sequence[Sequence[Span]]  # in characters
_NAME_LENGTH = 60  # characters of a mention in the list of chains
_MOST_HEIGHT = 5  # mentions within mentions are drawn as boxes in boxes up to this many

_HEAD = """<!DOCTYPE html>
<html lang="und">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Coreference</title>
<style>
:root { --page: #fff; --ink: #1a1a1a; --quiet: #6a6a6a; --rule: #ddd; --fill: 90%; --line: 40%;
  color-scheme: light dark }
@media (prefers-color-scheme: dark) {
:root { --page: #16181b; --ink: #e4e4e4; --quiet: #9a9a9a; --rule: #3a3d42; --fill: 24%; --line: 68% }
}
body { margin: 0 auto; max-width: 46rem; padding: 0 1rem 3rem; background: var(--page); color: var(--ink);
  font: 1.05rem/1.5 Georgia, serif; -webkit-text-size-adjust: 100% }
h1, h2, details, header, .note { font-family: system-ui, sans-serif }
h1 { font-size: 1.5rem }
h2 { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere }
header, summary, .note { color: var(--quiet); font-size: .9rem }
header { margin-bottom: 1rem }
article { border-top: 1px solid var(--rule); padding: 1rem 0 }
summary { cursor: pointer }
ul { display: flex; flex-wrap: wrap; gap: .4rem 1rem; list-style: none; margin: .5rem 0; padding: 0; font-size: .9rem }
.text { line-height: 2.1; margin-top: .75rem; overflow-wrap: anywhere; unicode-bidi: plaintext; white-space: pre-wrap }
mark { background: hsl(var(--h) 70% var(--fill)); border: 1px solid hsl(var(--h) 60% var(--line)); border-radius: .3em;
  box-decoration-break: clone; -webkit-box-decoration-break: clone; color: inherit; cursor: pointer;
  padding: calc(.04em + var(--n, 0) * .16em) .14em }
mark::after { color: hsl(var(--h) 60% var(--line)); content: attr(data-c); font: 600 .62em/1 system-ui, sans-serif;
  padding-inline-start: .15em; vertical-align: sub }
mark.one { background: none; border: 1px dotted var(--quiet) }
mark.one::after { color: var(--quiet) }
mark.cut { border-inline-end-style: dashed }
mark.cut::after { content: none }
.chosen mark:not(.on) { background: none; border-color: var(--rule) }
.chosen mark.on { outline: 2px solid hsl(var(--h, 0) 60% var(--line)) }
</style>
</head>
<body>
<h1>Coreference</h1>
<header>Mentions of one chain have one colour and one number; those that are alone in their chain are dotted. Select a
mention to see its chain.</header>
"""
# Marks the chain of the mention that was selected, in its text only.
_FOOT = """<script>
document.addEventListener("click", event => {
  const chosen = event.target.closest("mark"), article = event.target.closest("article");
  for (const each of document.querySelectorAll(".on, .chosen"))
    each.classList.remove("on", "chosen");
  if (!chosen) return;
  article.classList.add("chosen");
  for (const each of article.querySelectorAll(`mark[data-c="${chosen.dataset.c}"]`))
    each.classList.add("on");
});
</script>
</body>
</html>
"""


def chains_page(documents: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """Yields the parts of the page: its head, one part for each text, and its end.

    Args:
      documents: each text and its prediction: "id", "file" if there are several, "note" if something is wrong, and
        "chains", lists of mentions with their "start" and "end" in characters of the text. Mentions may nest, cross
        each other, and be in several chains.
    """
    yield _HEAD
    for text, prediction in documents:
        yield _article(text, prediction)
    yield _FOOT


class _Mention(NamedTuple):
    """A mention, or a part of one that begins in another mention and ends after it."""
    end: int
    chain: int  # number, from 1
    cut: bool  # whether another part follows


def _article(text: str, prediction: dict[str, Any]) -> str:
    name = " · ".join(str(prediction[field]) for field in ("file", "id") if field in prediction)
    note = f'<p class="note">{_escape(prediction["note"])}</p>\n' if "note" in prediction else ""
    chains = [[(mention["start"], mention["end"]) for mention in chain] for chain in prediction["chains"]]
    return (f"<article>\n<h2>{_escape(name)}</h2>\n{note}{_list_of_chains(text, chains)}"
            f'<div class="text" dir="auto">{_marked(text, chains)}</div>\n</article>\n')


def _list_of_chains(text: str, chains: Chains) -> str:
    """A folded list of the chains of several mentions: the first mention of each, and how many there are."""
    entries = []
    for number, chain in enumerate(chains, 1):
        if len(chain) > 1:
            name = " ".join(text[slice(*chain[0])].split())
            shown = name if len(name) <= _NAME_LENGTH else f"{name[:_NAME_LENGTH]}…"
            entries.append(f"<li>{_tag(number)}{_escape(shown)}</mark> {len(chain):,}</li>\n")
    summary = f"{format_plural(len(entries), 'chain')} of several mentions, {len(chains) - len(entries):,} of one"
    return f"<details><summary>{summary}</summary>\n<ul>\n{''.join(entries)}</ul>\n</details>\n"


def _marked(text: str, chains: Chains) -> str:
    """The text with a tag around each mention, one in another where they nest."""
    parts: list[str] = []
    # Open mentions, each with the place of its tag in `parts`, and its height: how many mentions nest in it.
    opened: list[tuple[_Mention, int, int]] = []
    place = 0
    for start, mention in [*_nested(chains), (len(text), None)]:
        while opened and opened[-1][0].end <= start:
            (end, number, cut), tag, height = opened.pop()
            parts.append(f"{_escape(text[place:end])}</mark>")
            parts[tag] = _tag(number, len(chains[number - 1]) == 1, height, cut)
            if opened and opened[-1][2] <= height:
                opened[-1] = (*opened[-1][:2], height + 1)
            place = end
        parts.append(_escape(text[place:start]))
        place = start
        if mention:
            opened.append((mention, len(parts), 0))
            parts.append("")  # the tag, when the height is known
    return "".join(parts)


def _nested(chains: Chains) -> Iterator[tuple[int, _Mention]]:
    """Yields the starts of mentions, and the mentions, in order: of those with one start the longest first.

    A mention that ends after the one in which it begins is cut there, as tags must nest.
    """
    queue = [(start, -end, number) for number, chain in enumerate(chains, 1) for start, end in chain]
    heapq.heapify(queue)
    ends: list[int] = []  # of the mentions around the next one
    while queue:
        start, minus_end, number = heapq.heappop(queue)
        while ends and ends[-1] <= start:
            ends.pop()
        end = min([-minus_end, *ends[-1:]])
        ends.append(end)
        if cut := end < -minus_end:
            heapq.heappush(queue, (end, minus_end, number))
        yield start, _Mention(end, number, cut)


def _tag(number: int, single: bool = False, height: int = 0, cut: bool = False) -> str:
    """The tag of a mention. Neighbouring numbers differ most in hue: the golden angle."""
    classes = " ".join(["one"] * single + ["cut"] * cut)
    hue, nested = round(137.508 * number) % 360, min(height, _MOST_HEIGHT)
    style = ";".join([f"--h:{hue}"] * (not single) + [f"--n:{nested}"] * (nested > 0))
    return f'<mark data-c="{number}"' + f' class="{classes}"' * bool(classes) + f' style="{style}"' * bool(style) + ">"


def _escape(text: str) -> str:
    return html.escape(str(text), quote=False)
