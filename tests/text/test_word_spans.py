"""Words of a text."""
import time

import pytest

from spanbert_jax.text import word_spans


@pytest.mark.parametrize("text, words", [
    ("Lincoln's Inn, didn't O'Brien’s", "Lincoln 's Inn , did n't O'Brien ’s"),
    ("shan't don’t DON'T", "sha n't do n’t DO N'T"),
    ("Mary-Ann -- well... (3.5%, 1,000)", "Mary - Ann -- well ... ( 3.5 % , 1,000 )"),
    ("the boys' U.S. dog.", "the boys ' U.S. dog ."),
    ("他去北京ABC公司", "他 去 北 京 ABC 公 司"),
    ("ラーメン", "ラ ー メ ン"),
    ("ไทยดี", "ไ ท ย ดี"),
    ("हिन्दी में", "हिन्दी में"),
    ("السلام؟", "السلام ؟"),
    ("می\u200cخواهم", "می\u200cخواهم"),
    ("e\u0301 \u0301", "e\u0301 \u0301"),
    ("a\x00b\u200bc", "a b c")])
def test_words(text, words):
    assert [text[start:end] for start, end in word_spans(text)] == words.split()


def test_words_are_split_at_cuts():
    assert word_spans("McBride met", (0, 2, 7, 8, 9, 11)) == [(0, 2), (2, 7), (8, 9), (9, 11)]


@pytest.mark.parametrize("unit", ["a'", "1,", "a.", "n't", "'", "1", "-"])
def test_words_are_found_in_linear_time(unit):
    short, long = (unit * count for count in (2_000, 200_000))
    started = time.process_time()
    word_spans(short)
    middle = time.process_time()
    word_spans(long)
    assert time.process_time() - middle < 0.5 + 400 * (middle - started)  # a square would take 10,000 times as long
