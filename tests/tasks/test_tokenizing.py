"""Invisible characters at the ends of spans."""
import pytest

from spanbert_jax.tasks.tokenizing import with_format_characters


@pytest.mark.parametrize("text, part, expected", [
    ("a\u200db", "a", "a"), ("a\u200db", "b", "b"), ("\U0001f469\u200d\U0001f4bb", "\U0001f469", "\U0001f469"),
    ("hy\u00adphen", "hy", "hy"), ("a\u200fb", "b", "b"), ("a\u200f\u2067b", "b", "\u2067b"),
    ("a\u200f\u2067b", "a", "a\u200f"), ("a\u200b\u200fb", "b", "\u200fb"), ("", "", "")])
def test_format_characters_between_two_characters(text, part, expected):
    start = text.index(part)
    first, last = with_format_characters(text, start, start + len(part))
    assert text[first:last] == expected
