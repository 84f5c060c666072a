"""Invisible characters at the ends of spans, and batches of texts."""
import pytest

from spanbert_jax.tasks import tokenizing
from spanbert_jax.tasks.tokenizing import encode_texts, with_format_characters


@pytest.mark.parametrize("text, part, expected", [
    ("a\u200db", "a", "a"), ("a\u200db", "b", "b"), ("\U0001f469\u200d\U0001f4bb", "\U0001f469", "\U0001f469"),
    ("hy\u00adphen", "hy", "hy"), ("a\u200fb", "b", "b"), ("a\u200f\u2067b", "b", "\u2067b"),
    ("a\u200f\u2067b", "a", "a\u200f"), ("a\u200b\u200fb", "b", "\u200fb"), ("", "", "")])
def test_format_characters_between_two_characters(text, part, expected):
    start = text.index(part)
    first, last = with_format_characters(text, start, start + len(part))
    assert text[first:last] == expected


def test_few_characters_are_tokenized_at_once(monkeypatch):
    sizes = []

    class Plain:
        def encode_batch(self, texts, add_special_tokens):
            sizes.append([len(text) for text in texts])
            return texts

    monkeypatch.setattr(tokenizing, "_plain", lambda tokenizer: Plain())
    monkeypatch.setattr(tokenizing, "_BATCH", 3)
    monkeypatch.setattr(tokenizing, "_CHARACTERS", 10)
    texts = ["a" * length for length in (1, 2, 3, 11, 6, 5, 4, 1)]
    assert list(encode_texts(texts, None)) == texts
    assert sizes == [[1, 2, 3], [11], [6, 5], [4, 1]]
