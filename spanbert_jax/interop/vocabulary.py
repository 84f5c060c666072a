"""From the rows of one vocabulary to those of another."""
from __future__ import annotations

import dataclasses

import numpy as np
from tokenizers import Tokenizer, models

from spanbert_jax.text import CONTINUATION_PREFIX, SPECIAL_TOKENS


@dataclasses.dataclass(frozen=True)
class Transplant:
    """For each new piece, in the order of the ids, the ids of the old pieces that its row is the mean of.

    Attributes:
      sources: one old id where the piece was there already, none where nothing of it was known.
      kept, composed, drawn: how many pieces have their own row, the mean of others, and a new one.
    """
    sources: tuple[tuple[int, ...], ...]
    kept: int
    composed: int

    @property
    def drawn(self) -> int:
        """Pieces of which nothing was known."""
        return sum(not ids for ids in self.sources)

    def apply(self, rows: np.ndarray, deviation: float, seed: int) -> np.ndarray:
        """New rows, in float32, from old ones [V, ...]; those of unknown pieces are drawn from N(0, deviation).

        A bias [V] of an unknown piece is zero, as a fresh one is.
        """
        rows = rows.astype(np.float32)
        first = np.array([ids[0] if ids else 0 for ids in self.sources])
        new = rows[first]
        for piece, ids in enumerate(self.sources):
            if len(ids) > 1:
                new[piece] = rows[list(ids)].mean(axis=0)
        unknown = np.array([not ids for ids in self.sources])
        fresh = np.random.default_rng(seed).standard_normal(new.shape, np.float32) * np.float32(deviation)
        new[unknown] = fresh[unknown] if rows.ndim > 1 else 0
        return new


def transplant(old: Tokenizer, new: Tokenizer) -> Transplant:
    """Finds what each piece of `new` is in `old`: the same piece, or the pieces that `old` cuts it into."""
    known, pieces = old.get_vocab(with_added_tokens=True), new.get_vocab(with_added_tokens=True)
    inside = _inside_words(old)
    unknown, byte_level = known["[UNK]"], isinstance(new.model, models.BPE)

    def cut(piece: str) -> tuple[int, ...]:
        if piece in SPECIAL_TOKENS:
            return (known[piece],) if piece in known else ()
        if byte_level:
            piece = _of_bytes(new.decode([pieces[piece]]))
        if piece in known:
            return (known[piece],)
        body = piece.removeprefix(CONTINUATION_PREFIX) if len(piece) > len(CONTINUATION_PREFIX) else piece
        if body == piece:
            ids = old.encode(piece, add_special_tokens=False).ids
        else:
            body = old.normalizer.normalize_str(body) if old.normalizer else body
            ids = [token.id for token in inside.tokenize(body.strip())]
        return () if unknown in ids else tuple(ids)

    sources = tuple(map(cut, sorted(pieces, key=pieces.get)))
    kept = sum(len(ids) == 1 for ids in sources) if byte_level else sum(piece in known for piece in pieces)
    return Transplant(sources, kept, sum(map(bool, sources)) - kept)


def _of_bytes(text: str) -> str:
    """The text of a byte-level piece as WordPiece writes it: with a mark where it goes on in a word."""
    return text.strip() if not text[:1].isalnum() else CONTINUATION_PREFIX + text


def _inside_words(tokenizer: Tokenizer) -> models.WordPiece:
    """Cuts what stands inside a word into the pieces that continue one, with their ids."""
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    bodies = {piece.removeprefix(CONTINUATION_PREFIX): number for piece, number in vocab.items()
              if piece.startswith(CONTINUATION_PREFIX) and len(piece) > len(CONTINUATION_PREFIX)}
    # A word that cannot be cut needs an unknown piece; no body has brackets and capitals around nothing.
    return models.WordPiece({**bodies, "[UNK]": vocab["[UNK]"]}, unk_token="[UNK]", continuing_subword_prefix="")
