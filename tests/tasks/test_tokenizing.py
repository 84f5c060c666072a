"""Invisible characters at the ends of spans, batches of texts, and the first tokens of long texts."""
import itertools
import time

import pytest

from spanbert_jax.common.issues import DataIssues
from spanbert_jax.tasks import TASKS, tokenizing
from spanbert_jax.tasks.text_classification import Text, _truncated_lengths
from spanbert_jax.tasks.tokenizing import encode_texts, with_format_characters
from spanbert_jax.text import load_tokenizer
from tests.paths import DATA, needs_data
from tests.text import kinds


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


def long_texts() -> list[str]:
    """Prose, text without spaces, runs of characters that become no token or one, and few characters of many bytes."""
    prose, chinese = (DATA / "sotu").glob("*.txt"), "东京都に住んでいる。大きい、서울은 "
    return [max((path.read_text() for path in prose), key=len)[:40_000], chinese[:13] * 900, chinese * 900,
            "a" * 20_000, "a" * 10_000 + " b c" * 3000,
            " \n\u200b" * 4000 + " word" * 3000, "1234567 " * 3000, "😀é" * 5000,
            "don't " * 3000, ". . ." * 3000]


@needs_data
@pytest.mark.parametrize("kind", ["bert", *kinds.KINDS])
def test_the_first_tokens_are_those_of_the_whole_text(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizing, "_LEAST", 2000)
    monkeypatch.setattr(tokenizing, "_NEAR_CUT", 100)
    folder = DATA / "vocab" / "bert-base-cased-vocab.txt" if kind == "bert" else kinds.write(kind, tmp_path)
    tokenizer, texts = load_tokenizer(folder), long_texts()
    whole = list(encode_texts(texts, tokenizer))
    for most in (1, 64, 700):
        for text, start, all_tokens in zip(texts, encode_texts(texts, tokenizer, most), whole, strict=True):
            assert start.ids[:most + 1] == all_tokens.ids[:most + 1], (most, text[:20])
            assert len(start) >= min(most + 1, len(all_tokens))


@needs_data
def test_of_a_long_text_only_what_is_kept_is_tokenized():
    tokenizer = load_tokenizer(DATA / "vocab" / "bert-base-cased-vocab.txt")
    made = TASKS.get("text_classification")
    task, issues = made(made.Settings(length=64, text="a", second="b")), DataIssues()
    texts = ["The president lives in Paris. " * 500_000, "An old house. " * 500_000]
    begun = time.process_time()
    features = task.features([Text("1", "f:1", "g", *texts, "x")], tokenizer, issues, False)
    assert time.process_time() - begun < 1  # all of it takes a minute
    short = task.features([Text("1", "f:1", "g", *(text[:900] for text in texts), "x")], tokenizer, issues, False)
    assert features.tokens.tolist() == short.tokens.tolist() and len(features.tokens) == 64
    assert set(issues.counts.values()) == {2}


def test_pairs_are_cut_the_same_if_their_texts_are_cut_before():
    for first, second, room in itertools.product(range(24), range(24), range(1, 9)):
        assert _truncated_lengths(min(first, room + 3), min(second, room + 3), room) == _truncated_lengths(
            first, second, room)
