"""The page of coreference chains: every character and mention is there, nothing of a text becomes markup."""
import html.parser
import re
from collections import Counter

import numpy as np

from spanbert_jax.tasks.coreference_html import chains_page

HOSTILE = "<script>alert(1)</script> & \"Ann\" &amp; 'Bob' </mark></div> -->"


class Page(html.parser.HTMLParser):
    """The texts of a page, the characters that each chain covers, and all tags; fails where tags do not nest."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.covered, self.heights, self.tags, self._open = [], [], [], Counter(), []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        if tag not in ("meta", "br"):
            self._open.append((tag, dict(attributes)))
        if ("class", "text") in attributes:
            self.texts.append("")
            self.covered.append(Counter())
        if tag == "mark" and self._inside_text():
            self.heights.append(int(re.search(r"--n:(\d)|$", dict(attributes).get("style", ""))[1] or 0))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        if self._inside_text():
            for tag, attributes in self._open:
                if tag == "mark":
                    start = len(self.texts[-1])
                    self.covered[-1].update((int(attributes["data-c"]), start + place) for place in range(len(data)))
            self.texts[-1] += data

    def _inside_text(self):
        return any(attributes.get("class") == "text" for _, attributes in self._open)


def prediction(*chains, **fields):
    return {"id": "1", **fields, "chains": [[{"start": start, "end": end} for start, end in chain] for chain in chains]}


def read_page(*documents):
    return Page("".join(chains_page(documents)))


def test_random_mentions_that_nest_and_cross():
    rng = np.random.default_rng(0)
    documents = []
    for _ in range(100):
        text = "".join(rng.choice(list("ab <>&\"'\né日אب"), int(rng.integers(0, 60))))
        ends = np.sort(rng.integers(0, len(text) + 1, (int(rng.integers(0, 12)), 2)), axis=1).tolist()
        spans = [(start, end) for start, end in ends if start < end]
        documents.append((text, prediction(*(spans[first::4] for first in range(min(4, len(spans)))))))
    page = read_page(*documents)
    assert page.texts == [text for text, _ in documents]
    for covered, (_, found) in zip(page.covered, documents, strict=True):
        assert covered == Counter((number, place) for number, chain in enumerate(found["chains"], 1)
                                  for mention in chain for place in range(mention["start"], mention["end"]))


def test_nothing_of_a_text_becomes_markup():
    plain, hostile = (read_page((text, prediction([(0, 8), (5, 30)], [(3, 12)], id=text, note=text, file=text)))
                      for text in ("x" * len(HOSTILE), HOSTILE))
    assert hostile.texts == [HOSTILE] and hostile.tags == plain.tags and plain.tags["script"] == 1


def test_mentions_around_others_are_higher():
    text = "my friend 's mother and sister"
    page = read_page((text, prediction([(0, 30)], [(0, 12)], [(0, 2)], [(24, 30)])))
    assert page.heights == [2, 1, 0, 0]


def test_the_list_of_chains_names_those_of_several_mentions():
    text = "Ann saw\nher  cat"
    page = "".join(chains_page([(text, prediction([(0, 3), (8, 11)], [(8, 16)])), ("", prediction())]))
    assert "1 chain of several mentions, 1 of one" in page and "0 chains of several mentions, 0 of one" in page
    assert re.search(r'<li><mark data-c="1"[^>]*>Ann</mark> 2</li>', page) and page.count("<li>") == 1


def test_the_page_needs_no_other_file():
    assert not re.search(r"https?:|src=|url\(|@import|<link", "".join(chains_page([])))


def test_texts_are_read_one_by_one():
    begun = []

    def documents():
        for number in range(3):
            begun.append(number)
            yield "Ann", prediction([(0, 3)])

    parts = chains_page(documents())
    assert "<title>" in next(parts) and begun == []
    assert "<article>" in next(parts) and begun == [0]


def test_a_novel_takes_less_than_3_megabytes():
    """100,000 words, of which every fourth is a mention."""
    text = "word " * 100_000
    chains = [[(20 * (number + place), 20 * (number + place) + 4) for place in range(0, 25_000, 500)]
              for number in range(500)]
    assert sum(len(part.encode()) for part in chains_page([(text, prediction(*chains))])) < 3e6
