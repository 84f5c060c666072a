"""Fills runs of [MASK] tokens with the masked-token head, the span boundary head, and both combined."""
import dataclasses
import functools
import itertools
import math
import pathlib
import re
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.pretrained import check_entries, load_params, load_tokenizer, open_pretrained
from spanbert_jax.model import EncoderModel
from spanbert_jax.model.heads import BOUNDARIES, TOKEN_EMBEDDING
from spanbert_jax.text import SpecialIds, Spelling, special_ids, special_tokens, spelling

_MASK = "[MASK]"  # in a text, whatever the tokenizer calls it
# Rows are padded to a multiple of this, so that texts of similar length share a compiled program.
_LENGTH_MULTIPLE = 32
_NO_HEAD = ("these weights have no masked-token head, so they cannot fill; the released SpanBERT archives have no "
            "pretraining heads, except the large one with heads")


@dataclasses.dataclass(frozen=True)
class Filling:
    """Tokens for a run of [MASK]s."""
    pieces: tuple[str, ...]  # one token per [MASK]; the key in the output of `fill --json`
    text: str  # the text of the tokens; a '##' token that comes first keeps its '##'
    log_probability: float  # natural logarithm, summed over the tokens, which are predicted independently

    @property
    def probability(self) -> float:
        """Probability of all tokens together."""
        return math.exp(self.log_probability)


@dataclasses.dataclass(frozen=True)
class MaskRun:
    """A run of adjacent [MASK]s and its best fillings, the best first."""
    start: int  # position of its first [MASK] in the text's tokens; [CLS] has position 0
    length: int  # number of [MASK]s
    masked_token: tuple[Filling, ...]  # by the masked-token head
    boundary: tuple[Filling, ...] | None = None  # by the boundary head; None if it cannot be used
    both: tuple[Filling, ...] | None = None  # by the normalized product of both heads at each [MASK]; None likewise
    why_no_boundary: str = ""  # why the boundary head cannot be used; else empty


def fill(model: str | pathlib.Path | tuple[EncoderModel, Any], text: str, k: int = 5,
         tokenizer: Tokenizer | None = None) -> list[MaskRun]:
    """The k best fillings of each run of [MASK]s in a text.

    The boundary head predicts a run from the tokens before and after it, which must not be special tokens: spans at the
    edge of a text have no boundary targets in training, here as in the reference. Special tokens are never predicted.

    Args:
      model: a name or path as for `from_pretrained`, or a model and its parameters as from `load_filling_model`.
      text: contains at least one [MASK], or the tokenizer's own token that masks, such as <mask>.
      k: number of fillings; fewer are returned if there are no more.
      tokenizer: the one that the model was trained with; by default the one at the name or path.

    Returns:
      The runs in the order of the text.

    Raises:
      UserError: there is no [MASK], the text is too long, k is below 1, or model or tokenizer cannot be used.
    """
    if k < 1:
        raise UserError(f"k={k}: must be at least 1")
    if isinstance(model, (str, pathlib.Path)):
        tokenizer = tokenizer or load_tokenizer(model)
        model = load_filling_model(model)
    encoder, params = model
    if TOKEN_EMBEDDING not in encoder.head.inputs:
        raise UserError(_NO_HEAD)
    if tokenizer is None:
        raise UserError("no tokenizer: give the one that the model was trained with (spanbert_jax.load_tokenizer)")
    config, special = encoder.config, special_ids(tokenizer)
    proposable = _proposable(tokenizer, config.vocab_size)
    tokens = _encode(text, tokenizer, special, config.max_positions)
    # Start and length of each run of [MASK]s.
    groups = itertools.groupby(range(len(tokens)), key=lambda position: tokens[position] == special.mask)
    runs = [((positions := list(group))[0], len(positions)) for is_mask, group in groups if is_mask]
    logits, boundary_logits = _predict(encoder, params, *_inputs(tokens, runs, special.pad, config.max_positions))
    filled, spelled = [], spelling(tokenizer)
    for start, length in runs:
        at, why_not = slice(start, start + length), _why_no_boundary(encoder, tokens, start, length, special)
        scores = {"masked_token": _log_probabilities(np.asarray(logits)[at], proposable)}
        if not why_not:
            scores["boundary"] = _log_probabilities(np.asarray(boundary_logits)[at], proposable)
            scores["both"] = _log_probabilities(scores["masked_token"] + scores["boundary"], proposable)
        fillings = {head: _fillings(score, k, tokenizer, spelled) for head, score in scores.items()}
        filled.append(MaskRun(start, length, **fillings, why_no_boundary=why_not))
    return filled


def load_filling_model(name_or_path: str | pathlib.Path) -> tuple[EncoderModel, dict[str, Any]]:
    """A model with pretraining heads and its parameters. Raises UserError if there is no masked-token head."""
    pretrained = open_pretrained(name_or_path)
    if TOKEN_EMBEDDING not in pretrained.head.inputs:
        raise UserError(f"{pretrained.path}: {_NO_HEAD}")
    encoder = pretrained.model(pretrained.head.name)
    return encoder, load_params(pretrained, encoder)


def best_combinations(log_probabilities: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The exact k best choices of one of V tokens at each of n positions, by the sum of log-probabilities.

    Args:
      log_probabilities: [n, V]; -inf is never chosen.

    Returns:
      The choices [K, n] and their sums [K], the best first. K is k, or fewer if there are no more.
    """
    choices, sums = np.zeros((1, 0), np.int64), np.zeros(1)
    for scores in log_probabilities:
        order = np.argsort(-scores, kind="stable")[:k]
        order = order[scores[order] > -np.inf]
        # Choice i so far with token j of this position: (i + 1)(j + 1) - 1 others are at least as good.
        pairs = [(i, j) for i in range(len(sums)) for j in range(min(len(order), k // (i + 1)))]
        before, here = np.array(pairs, np.int64).reshape(-1, 2).T
        candidates = sums[before] + scores[order[here]]
        best = np.argsort(-candidates, kind="stable")[:k]
        choices = np.concatenate([choices[before[best]], order[here[best], None]], axis=1)
        sums = candidates[best]
    return choices, sums


def _proposable(tokenizer: Tokenizer, vocab_size: int) -> np.ndarray:
    """[V] booleans: tokens of the vocabulary that are not special."""
    check_entries(tokenizer, vocab_size)
    special = special_tokens(tokenizer).values()
    ids = [i for token, i in tokenizer.get_vocab(with_added_tokens=True).items() if token not in special]
    proposable = np.zeros(vocab_size, bool)
    proposable[ids] = True
    return proposable


def _encode(text: str, tokenizer: Tokenizer, special: SpecialIds, max_positions: int) -> list[int]:
    """Token ids with [CLS] and [SEP].

    A [MASK] stands for a token with the space before it, as in training, so this space is left out.
    """
    mask = special_tokens(tokenizer)["mask"]
    text = re.sub(rf"\s*(?:{re.escape(_MASK)}|{re.escape(mask)})", lambda _: mask, text)
    tokens = [special.cls, *tokenizer.encode(text, add_special_tokens=False).ids, special.sep]
    if special.mask not in tokens:
        raise UserError(f"no {_MASK} in the text; write one for each token to fill in")
    if len(tokens) > max_positions:
        raise UserError(f"the text has {len(tokens):,} tokens with [CLS] and [SEP], and the model takes at most "
                        f"{max_positions:,}; shorten it")
    return tokens


def _why_no_boundary(encoder: EncoderModel, tokens: list[int], start: int, length: int, special: SpecialIds) -> str:
    """Why the boundary head cannot fill a run; empty if it can. The rules are those of masking."""
    if BOUNDARIES not in encoder.head.inputs:
        return "the weights have no boundary head"
    head: Any = encoder.head
    places = head.boundary_positions
    if length > places:
        return f"the run has {length} tokens, and the boundary head predicts at most {places}"
    if {tokens[start - 1], tokens[start + length]} & {special.cls, special.sep, special.pad}:
        return "the run touches the edge of the text, where the boundary head was never trained"
    return ""


def _inputs(tokens: list[int], runs: list[tuple[int, int]], pad: int, max_positions: int) -> np.ndarray:
    """The array arguments of `_predict`, stacked: [5, 1, S] int32."""
    length = min(math.ceil(len(tokens) / _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE, max_positions)
    inputs = np.zeros((5, 1, length), np.int32)
    inputs[0] = pad
    inputs[0, 0, :len(tokens)] = tokens
    inputs[1, 0, :len(tokens)] = 1
    for start, count in runs:
        inputs[2, 0, start:start + count] = start - 1
        inputs[3, 0, start:start + count] = start + count
        inputs[4, 0, start:start + count] = np.arange(count)
    return inputs


@functools.partial(jax.jit, static_argnames="encoder")
def _predict(encoder: EncoderModel, params: Any, tokens: jax.Array, attention_mask: jax.Array, left: jax.Array,
             right: jax.Array, place: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """Logits [S, V] of both heads; the boundary head's are defined only inside runs, and None without that head.

    All arrays are [1, S]; `left`, `right`, `place`: positions before and after a position's run, and its index in it.
    """
    outputs: Any = encoder.apply({"params": params}, tokens, attention_mask)
    if BOUNDARIES not in encoder.head.inputs:
        return outputs.logits[0], None
    boundary: Any = encoder.apply({"params": params}, outputs.last_hidden_state, left, right, place,
                             method="boundary_logits")
    return outputs.logits[0], boundary[0]


def _log_probabilities(logits: np.ndarray, proposable: np.ndarray) -> np.ndarray:
    """Log-probabilities over the proposable tokens; -inf elsewhere. [n, V], [V] -> [n, V] float64."""
    scores = np.where(proposable, logits.astype(np.float64), -np.inf)
    return scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)


def _fillings(log_probabilities: np.ndarray, k: int, tokenizer: Tokenizer, spelled: Spelling) -> tuple[Filling, ...]:
    fillings = []
    for ids, score in zip(*best_combinations(log_probabilities, k)):
        tokens = tuple(tokenizer.id_to_token(int(i)) for i in ids)
        mark = "" if spelled.begins[ids[0]] else spelled.prefix
        fillings.append(Filling(tokens, mark + spelled.join(ids.tolist()), float(score)))
    return tuple(fillings)
