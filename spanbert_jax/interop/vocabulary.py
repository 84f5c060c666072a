"""Embedding rows for a new vocabulary, made from those of an old one."""
import dataclasses

import numpy as np
from tokenizers import Tokenizer, models

from spanbert_jax.text import CONTINUATION_PREFIX, SPECIAL_TOKENS, vocabulary_size


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
    """Finds each token of `new` in `old`: the same token, or the tokens that `old` splits it into."""
    known, vocab = old.get_vocab(with_added_tokens=True), new.get_vocab(with_added_tokens=True)
    inside = _inside_words(old)
    unknown, byte_level = known["[UNK]"], isinstance(new.model, models.BPE)

    def split(token: str) -> tuple[int, ...]:
        if token in SPECIAL_TOKENS:
            return (known[token],) if token in known else ()
        if byte_level:
            token = _as_wordpiece(new.decode([vocab[token]]))
        if token in known:
            return (known[token],)
        body = token.removeprefix(CONTINUATION_PREFIX) if len(token) > len(CONTINUATION_PREFIX) else token
        if body == token:
            ids = old.encode(token, add_special_tokens=False).ids
        else:
            body = old.normalizer.normalize_str(body) if old.normalizer else body
            ids = [token.id for token in inside.tokenize(body.strip())]
        return () if unknown in ids else tuple(ids)

    tokens = {number: token for token, number in vocab.items()}
    sources = tuple(split(tokens[number]) if number in tokens else () for number in range(vocabulary_size(new)))
    kept = sum(len(ids) == 1 for ids in sources) if byte_level else sum(token in known for token in vocab)
    return Transplant(sources, kept, sum(map(bool, sources)) - kept)


def _as_wordpiece(text: str) -> str:
    """Returns the text of a byte-level token in WordPiece's notation: "##" before tokens that continue a word."""
    return text.strip() if not text[:1].isalnum() else CONTINUATION_PREFIX + text


def _inside_words(tokenizer: Tokenizer) -> models.WordPiece:
    """Returns a model that splits the inside of a word into continuing wordpieces, with their ids."""
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    bodies = {token.removeprefix(CONTINUATION_PREFIX): number for token, number in vocab.items()
              if token.startswith(CONTINUATION_PREFIX) and len(token) > len(CONTINUATION_PREFIX)}
    # A word that cannot be split becomes [UNK], which is not the body of any wordpiece.
    return models.WordPiece({**bodies, "[UNK]": vocab["[UNK]"]}, unk_token="[UNK]", continuing_subword_prefix="")
