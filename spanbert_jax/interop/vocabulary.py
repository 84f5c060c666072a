"""Embedding rows for a new vocabulary, made from those of an old one."""
import dataclasses
from collections.abc import Callable

import numpy as np
from tokenizers import Tokenizer, models

from spanbert_jax.text import is_byte_level, keeps_spaces, special_ids, special_tokens, spelling, vocabulary_size
from spanbert_jax.text.words import byte_characters, mark_spaces


@dataclasses.dataclass(frozen=True)
class Transplant:
    """The plan for the rows of a new vocabulary."""
    sources: tuple[tuple[int, ...], ...]  # old ids whose mean is a new id's row; none if it is drawn at random
    kept: int  # number of tokens that keep their row
    composed: int  # number of tokens whose row is the mean of others

    @property
    def drawn(self) -> int:
        """Number of tokens whose row is drawn at random."""
        return sum(not ids for ids in self.sources)

    def apply(self, rows: np.ndarray, deviation: float, seed: int) -> np.ndarray:
        """Returns new float32 rows from old ones [V, ...]. `deviation` is of drawn rows; drawn biases [V] are zero."""
        rows = rows.astype(np.float32)
        new = rows[[ids[0] if ids else 0 for ids in self.sources]]
        for token, ids in enumerate(self.sources):
            if len(ids) > 1:
                new[token] = rows[list(ids)].mean(axis=0)
        unknown = np.array([not ids for ids in self.sources])
        fresh = np.random.default_rng(seed).standard_normal(new.shape, np.float32) * np.float32(deviation)
        new[unknown] = fresh[unknown] if rows.ndim > 1 else 0
        return new


def transplant(old: Tokenizer, new: Tokenizer) -> Transplant:
    """Finds each token of `new` in `old`: the same token, or the tokens that `old` splits it into.

    The vocabularies may be of different kinds, such as byte-level BPE and WordPiece. Special tokens are the same if
    their roles are.
    """
    known, find = old.get_vocab(with_added_tokens=True), _finder(old)
    roles, old_roles = special_tokens(new), special_tokens(old)
    special = {token: old_roles.get(role) for role, token in roles.items()}
    spelled, added = spelling(new), new.get_added_tokens_decoder()
    same_kind = _kind(old) == _kind(new)
    sources: list[tuple[int, ...]] = [()] * vocabulary_size(new)
    kept = 0
    for token, number in new.get_vocab(with_added_tokens=True).items():
        same = special.get(token, token if same_kind or number in added else None)
        if same in known:
            sources[number], found = (known[same],), True
        elif token in special:
            continue
        else:
            sources[number], found = find(bool(spelled.begins[number]), spelled.bodies[number])
        kept += found
    return Transplant(tuple(sources), kept, sum(map(bool, sources)) - kept)


def _kind(tokenizer: Tokenizer) -> tuple[str, bool]:
    """Vocabularies of the same kind give tokens of the same name the same text."""
    return spelling(tokenizer).prefix, is_byte_level(tokenizer)


def _finder(tokenizer: Tokenizer) -> Callable[[bool, bytes], tuple[tuple[int, ...], bool]]:
    """Returns a function from a token, its mark and its text, to ids that spell it, and whether that is one token."""
    spelled, inside, unknown = spelling(tokenizer), _inside_words(tokenizer), special_ids(tokenizer).unk
    special = {tokenizer.token_to_id(token) for token in special_tokens(tokenizer).values()}
    by_text = {(bool(begins), body): number for number, (begins, body) in enumerate(zip(spelled.begins, spelled.bodies))
               if body and number not in special}
    space = " " * keeps_spaces(tokenizer)

    def find(begins: bool, body: bytes) -> tuple[tuple[int, ...], bool]:
        try:
            text = body.decode()
        except UnicodeDecodeError:  # a part of a character
            return (), False
        # Punctuation begins a word in one kind of vocabulary, and has no mark in another.
        marks = (begins,) if text[:1].isalnum() else (begins, not begins)
        if same := [by_text[mark, body] for mark in marks if (mark, body) in by_text]:
            return (same[0],), True
        if begins or (spelled.prefix and not text[:1].isalnum()):
            ids = tokenizer.encode(space * begins + text, add_special_tokens=False).ids
        else:
            ids = inside(text)
        return () if unknown in ids else tuple(ids), False

    return find


def _inside_words(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    """Returns a function that splits the inside of a word into tokens, and gives their ids."""
    model, spelled = tokenizer.model, spelling(tokenizer)
    to_model: Callable[[str], str] = byte_characters if is_byte_level(tokenizer) else mark_spaces
    if spelled.prefix:
        bodies = {body.decode(): number for number, (begins, body) in enumerate(zip(spelled.begins, spelled.bodies))
                  if body and not begins}
        # A word that cannot be split becomes [UNK], which is not the body of any wordpiece.
        unknown = special_ids(tokenizer).unk
        model, to_model = models.WordPiece({**bodies, "[UNK]": unknown}, unk_token="[UNK]",
                                           continuing_subword_prefix=""), str

    def split(text: str) -> list[int]:
        text = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
        return [token.id for token in model.tokenize(to_model(text.strip()))]

    return split
