"""SentencePiece's precompiled normalization: a trie of characters, a double array as of darts-clone, and texts."""
import base64
import binascii

import numpy as np

from spanbert_jax.common.errors import UserError

_MOST_BYTES = 1 << 20  # those of SentencePiece, of all of Unicode, have 240 KiB
_BLOCK = 256  # units; a double array consists of whole blocks, so that every byte leads to a unit inside
_MOST_LEVELS = 64  # bytes of a sequence of characters; SentencePiece's longest has 13
_IS_LEAF, _BYTE_LABEL, _VALUE = 1 << 8, (1 << 31) | 0xFF, (1 << 31) - 1


def checked_growth(encoded: str) -> float:
    """How much longer, at most, a precompiled normalization makes a text, in bytes.

    Raises UserError if the library would fail with it: its trie leaves the array, or a text is not there.
    """
    try:
        content = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        raise _damaged("not base64") from None
    if len(content) > _MOST_BYTES:
        raise _damaged(f"more than {_MOST_BYTES:,} bytes")
    size = int.from_bytes(content[:4], "little")
    units, texts = np.frombuffer(content[4:4 + size // 4 * 4], "<u4").astype(np.int64), content[4 + size:]
    if size % (4 * _BLOCK) or not len(units) or len(units) * 4 != size:
        raise _damaged("its trie is cut")
    try:
        texts.decode()
    except UnicodeDecodeError:
        raise _damaged("its texts are not UTF-8") from None
    return _growth(units, np.frombuffer(texts, np.uint8))


def _growth(units: np.ndarray, texts: np.ndarray) -> float:
    """The longest text of a leaf by its length in bytes.

    Args:
      units: [n] of the double array. A node's base is its place, exclusive-or its offset; its children are at the base,
        exclusive-or their bytes, and its value, if it is a leaf, at the base.
      texts: [m] bytes of all texts, each with a 0 after it.
    """
    places, labels = np.arange(len(units)), units & _BYTE_LABEL
    bases = places ^ ((units >> 10) << ((units & 1 << 9) >> 6))
    parents = places ^ np.where(labels < _BLOCK, labels, 0)
    ends = np.flatnonzero(texts == 0)
    growth, seen, new = 1.0, np.zeros(len(units), bool), bases[:1]
    for level in range(1, _MOST_LEVELS):
        if (new >= len(units)).any():
            raise _damaged("its trie leaves the array")
        new = new[~seen[new]]
        if not len(new):
            return growth
        seen[new] = True
        is_new = np.zeros(len(units), bool)
        is_new[new] = True
        nodes = places[is_new[parents] & (labels > 0) & (labels < _BLOCK)]
        new = np.unique(bases[nodes])
        leaves = bases[nodes[(units[nodes] & _IS_LEAF) > 0]]
        values = units[leaves[leaves < len(units)]] & _VALUE
        found = np.searchsorted(ends, values)
        if (found >= len(ends)).any() or ((texts[values] & 0xC0) == 0x80).any():
            raise _damaged("a text is not there")
        growth = max(growth, float((ends[found] - values).max(initial=0)) / level)
    raise _damaged("its trie is too deep")


def _damaged(why: str) -> UserError:
    return UserError(f"its precompiled_charsmap is damaged: {why}")
