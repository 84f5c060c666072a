"""Regular expressions of tokenizers: those of published models are allowed, and what is allowed is matched in time."""
import itertools
import random
import time

import pytest
from tokenizers import Regex, pre_tokenizers

from spanbert_jax.common.errors import UserError
from spanbert_jax.text.patterns import shortest_match

PUBLISHED = {
    "GPT-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "Llama 3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
               r"|\s+(?!\S)|\s+",
    "GPT-4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]"
             r"|\s+(?!\S)|\s+",
    "GPT-4o": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll)?"
              r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m)?"
              r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "DeepSeek": r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
                r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "BLOOM": r" ?[^(\s|[.,!?…。，、।۔،])]+", "CLIP": r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    "T5": r" {2,}", "groups of digits": r"(?<=\d)(?=(?:\d{3})+\b)", "Han": r"[一-龥぀-ゟ゠-ヿ]+"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_patterns_of_published_tokenizers_are_allowed(name):
    assert shortest_match(PUBLISHED[name]) == {"T5": 2, "groups of digits": 0}.get(name, 1)


@pytest.mark.parametrize("pattern, message", [
    ("^(a+)+$", "several ways is repeated"), ("(a|a)*$", "several ways"), ("(?:a|ab)+c", "several ways"),
    ("(.*)*", "several ways"), ("(?:(?:a{2})+)+", "several ways"), ("a?" * 14 + "a" * 14, "too many bounded"),
    ("a*a*b", "more than 1 unbounded"), ("a+(?:b|a*c)", "more than 1 unbounded"), (r"a*a*$", "more than 1 unbounded"),
    ("a*(?=a*b)", "more than 1 unbounded"), ("a?b?c?d?e?f?g?h*i", "too many bounded"),
    ("((a{1000}){1000}){1000}", "repeated"), ("a{1001}", "1,000 repeats"),
    (r"(a)\1", "not part of the syntax"), (r"\g<0>", "not part"), ("(?R)", "not part"), ("(?~a)", "not part"),
    ("[", "not part"), ("[]", "not part"), ("a**", "follows another"), ("a{1,3}+", "follows another"),
    ("((", "not closed"), ("a)", "not open"), ("x" * 3000, "2,000 characters")])
def test_other_patterns_are_errors(pattern, message):
    with pytest.raises(UserError, match=message) as caught:
        shortest_match(pattern)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def test_what_is_allowed_is_matched_in_time():
    """Random patterns of quantifiers, groups and alternatives, over the runs of a character that are worst for them."""
    chosen = random.Random(3)
    parts = ["a", "[ab]", ".", "(", "(?:", "(?=", ")", "|", "*", "+", "?", "{2,9}", "{3}", "b", "$"]
    allowed, texts = 0, ["a" * 60 + "c", "ab" * 30 + "c", "a" * 1500 + "c"]
    for _ in range(6000):
        pattern = "".join(chosen.choices(parts, k=chosen.randint(2, 9))) + "d?$"
        try:
            shortest_match(pattern)
        except UserError:
            continue
        try:
            split = pre_tokenizers.Split(Regex(pattern), "isolated")
        except Exception:  # Oniguruma forbids more, such as an empty group
            continue
        allowed += 1
        for text in texts:
            begun = time.process_time()
            split.pre_tokenize_str(text)  # a panic of the library would end the test
            assert time.process_time() - begun < 1, pattern
    assert allowed > 200


@pytest.mark.parametrize("pattern", [
    "a", "ab|c", "a?", "(?=a)", "a{2,3}b", "(ab){2}", "(?:a|bc)?d", "x*", "^a$", "[a-c]\\d"])
def test_the_shortest_match_is_that_of_the_library(pattern):
    split = pre_tokenizers.Split(Regex(rf"\A(?:{pattern})\z"), "removed")
    lengths = [size for size in range(5) for text in map("".join, itertools.product("abcdx1", repeat=size))
               if not split.pre_tokenize_str("" if size == 0 else text) and size] or [0]
    assert shortest_match(pattern) in (0, min(lengths))
