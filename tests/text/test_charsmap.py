"""Precompiled normalizations: a valid one is used, and damage is found before the library fails with it."""
import base64
import json
import random
import struct

import pytest
from tokenizers import Tokenizer, models, normalizers

from spanbert_jax.common.errors import UserError
from spanbert_jax.text.charsmap import checked_growth

LEAF, VALUE = 1 << 8, 1 << 31
TEXTS = b"\0xyz\0\xc3\xa9\0"  # the empty text, xyz and é


def trie() -> list[int]:
    """A double array of A -> xyz and of the two bytes of ß -> é."""
    units = [0] * 1024
    units[0] = 256 << 10  # the base of the root
    for at, byte, base, leaf in ((256 ^ 0x41, 0x41, 512, LEAF), (256 ^ 0xC3, 0xC3, 768, 0),
                                 (768 ^ 0x9F, 0x9F, 513, LEAF)):
        units[at] = (at ^ base) << 10 | leaf | byte
    units[512], units[513] = VALUE | 1, VALUE | 5
    return units


def encoded(units, texts=TEXTS) -> str:
    return base64.b64encode(struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + texts).decode()


def normalized(charsmap: str, text: str) -> str:
    """By the library, which ends the test if it panics."""
    values = json.loads(Tokenizer(models.WordLevel({"a": 0}, "a")).to_str())
    values["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": charsmap}
    normalizer = Tokenizer.from_str(json.dumps(values)).normalizer
    assert isinstance(normalizer, normalizers.Precompiled)
    return normalizer.normalize_str(text)


def test_a_valid_one_is_that_of_the_library():
    assert normalized(encoded(trie()), "A ß B") == "xyz é B" and checked_growth(encoded(trie())) == 3


@pytest.mark.parametrize("charsmap, message", [
    ("AAAA", "its trie is cut"), ("", "trie is cut"), ("?", "not base64"),
    (encoded(trie()[:700]), "its trie is cut"),
    (encoded(trie(), b"xyz\xff\0"), "not UTF-8"), (encoded(trie(), b"xyz"), "a text is not there"),
    (encoded([(1 << 20) << 10, *trie()[1:]]), "leaves the array"),
    (base64.b64encode(bytes(2 << 20)).decode(), "more than 1,048,576 bytes")])
def test_damage_is_named(charsmap, message):
    with pytest.raises(UserError, match=f"precompiled_charsmap is damaged: .*{message}"):
        checked_growth(charsmap)


def test_the_library_does_not_fail_with_what_is_accepted():
    chosen, accepted = random.Random(0), 0
    every = "".join(map(chr, [*range(1, 256), 0x4E2D, 0x1F600]))
    for _ in range(400):
        content = bytearray(base64.b64decode(encoded(trie())))
        used = [4 * place + 4 for place, unit in enumerate(trie()) if unit] + [*range(len(content) - 8, len(content))]
        for _ in range(chosen.randint(1, 3)):
            place = chosen.choice(used) + chosen.randint(0, 3)
            if place < len(content):
                content[place] ^= 1 << chosen.randint(0, 7)
        damaged = base64.b64encode(bytes(content)).decode()
        try:
            growth = checked_growth(damaged)
        except UserError:
            continue
        accepted += 1
        assert len(normalized(damaged, every).encode()) <= growth * len(every.encode())
    assert 50 < accepted < 390
