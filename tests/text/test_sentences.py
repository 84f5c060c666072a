"""Sentence boundaries: hand-written cases, and no text lost on real prose."""
import time

import pytest

from spanbert_jax.text import line_spans, sentence_spans
from tests.paths import DATA, needs_data


def sentences(text):
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize("text, expected", [
    ("One. Two! Three?", ["One.", "Two!", "Three?"]),
    ("He met Mr. Smith and J. Austen at 3.5 p.m. in town. Then left.",
     ["He met Mr. Smith and J. Austen at 3.5 p.m. in town.", "Then left."]),
    ("It was (so he said.) A lie.", ["It was (so he said.)", "A lie."]),
    ('"Go!" he said. "Now."', ['"Go!" he said.', '"Now."']),
    ("Wait... what? Yes.", ["Wait... what?", "Yes."]),
    ("A line\nthat is wrapped. Next\none.", ["A line\nthat is wrapped.", "Next\none."]),
    ("Heading\n\nBody text.\n \t\nMore", ["Heading", "Body text.", "More"]),
    ("今天天气好。“你好！”他说。", ["今天天气好。", "“你好！”", "他说。"]),
    ("So did I. Then he.", ["So did I.", "Then he."]),
    ("  \n\n ", []), ("", []),
])
def test_hand_written_cases(text, expected):
    assert sentences(text) == expected


def test_line_spans():
    text = "a. b\n\n  c \nd"
    assert [text[start:end] for start, end in line_spans(text)] == ["a. b", "c", "d"]


@needs_data
def test_only_white_space_lies_outside_on_real_prose():
    for path in sorted((DATA / "litbank" / "original").glob("*.txt"))[::30]:
        text = path.read_text()
        spans, last = sentence_spans(text), 0
        for start, end in spans:
            assert start >= last and end > start and not text[last:start].strip()
            assert not text[start].isspace() and not text[end - 1].isspace()
            last = end
        assert not text[last:].strip()
        assert 30 < len(text) / len(spans) < 300  # plausible length of English sentences


@pytest.mark.parametrize("unit", [".", ". ", ".\n", "\n", "!\"", "a. ", "。", " \n"])
def test_time_is_linear_in_length(unit):
    def seconds(count):
        start = time.perf_counter()
        sentence_spans(unit * count)
        return time.perf_counter() - start
    seconds(1000)
    assert seconds(400_000) < 5  # a quadratic scan would take hours
