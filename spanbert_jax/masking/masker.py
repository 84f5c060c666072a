"""Span masking on the accelerator: a pure, jitted function of (key, row)."""
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.masking import budgets, spans
from spanbert_jax.masking.distribution import DiscreteDistribution
from spanbert_jax.masking.mixtures import scheme_shares
from spanbert_jax.masking.replacement import make_replacement
from spanbert_jax.masking.schemes import SCHEMES, MaskingStep
from spanbert_jax.masking.settings import MaskingSettings

_FEATURES = ("tokens", "word_starts", "segments", "token_types", "annotations")


class SpecialIds(Protocol):
    """Ids of the special tokens."""
    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


class MaskedRows(NamedTuple):
    """Masked rows; [B, M] unless said, in order of position. Unused slots are 0 everywhere.

    M is the masker's `max_masked`. What is said of spans is said of merged ones, the maximal masked runs of a block.
    """
    inputs: jax.Array            # int32 [B, S], corrupted tokens
    positions: jax.Array         # int32, masked positions in the row
    targets: jax.Array           # int32, the original tokens there
    weights: jax.Array           # float32, 1 in used slots
    left: jax.Array              # int32, position of the span's left boundary
    right: jax.Array             # int32, position of its right boundary
    place: jax.Array             # int32, place in the span, from 0
    boundary_weights: jax.Array  # float32, 1 where the token is a target of the span boundary objective
    span_length: jax.Array       # int32, tokens


@dataclasses.dataclass(frozen=True)
class Masker:
    """Masks rows; made by `make_masker`.

    Attributes:
        max_masked: M, the static number of slots for masked positions.
        mask_rows: the jitted function behind `__call__`.
    """
    max_masked: int
    mask_rows: Callable[[jax.Array, dict[str, jax.Array]], MaskedRows]

    def __call__(self, keys: jax.Array, rows: Mapping[str, jax.Array]) -> MaskedRows:
        """Masks each row by its own key; a row's masks depend on nothing else.

        Args:
            keys: typed threefry keys [B].
            rows: tokens, word_starts, segments, token_types and annotations, integers [B, S]; other entries are let be.

        Raises:
            ValueError: the keys are of another kind. (Under `vmap` the rbg kinds draw all rows from the first key.)
        """
        if jax.random.key_impl(keys) != "threefry2x32":
            raise ValueError(f"masking needs threefry2x32 keys, not {jax.random.key_impl(keys)}: "
                             "make them by jax.random.key(seed, impl='threefry2x32')")
        return self.mask_rows(keys, {name: jnp.asarray(rows[name], jnp.int32) for name in _FEATURES})


def make_masker(
        spec: MaskingSettings, *, length: int, max_blocks: int, special: SpecialIds, unigram: np.ndarray) -> Masker:
    """Makes the masker for rows of `length` positions.

    Args:
        spec: the settings.
        length: S.
        max_blocks: the most blocks (texts with a mask budget of their own) that a row holds; further ones would stay
            unmasked.
        special: ids of the special tokens. All but [UNK] are neither masked nor drawn as random pieces.
        unigram: counts [V] of the pieces in the corpus, for random replacement.

    Raises:
        UserError: a setting is not allowed, or the unigram is empty.
    """
    spec.validate("config.masking")
    slots = budgets.max_masked(spec.rate, length, max_blocks)
    special_ids = (special.pad, special.cls, special.sep, special.mask)
    replace = make_replacement(spec, special.mask, special_ids, unigram)
    names, shares = zip(*scheme_shares(spec.scheme))
    schemes = [SCHEMES.get(name) for name in names]
    proposals = [scheme.make(spec) for scheme in schemes]
    forms_spans = np.array([scheme.forms_spans for scheme in schemes])
    scheme_law = DiscreteDistribution(shares)
    table = budgets.budget_table(spec.rate, length)

    def mask_row(key: jax.Array, features: dict[str, jax.Array]) -> MaskedRows:
        row, bits = _view(features, special_ids), _random_bits(key, length, max_blocks, slots)
        scheme_of_block = scheme_law.draw(bits.schemes)
        sizes = jnp.sum(row.maskable & (row.block == jnp.arange(max_blocks)[:, None]), axis=1)
        goals = jnp.cumsum(jnp.asarray(table)[sizes])
        masked = _choose(bits, row, goals, scheme_of_block, proposals)

        span = spans.merge(masked, row.block, row.maskable, spec.endpoints)
        at, used = _positions(masked, slots)
        targets, place = row.tokens[at], at - span.start[at]
        in_span = jnp.asarray(forms_spans)[scheme_of_block[row.block[at]]]
        slot = jnp.arange(slots, dtype=jnp.int32)
        by_span = in_span & (spec.replacement == "span")
        pieces = replace(bits.replacement, targets, jnp.where(by_span, slot - place, slot))
        bounded = used & in_span & span.bounded[at] & (place < spec.max_span_positions)
        return MaskedRows(
            inputs=row.tokens.at[jnp.where(used, at, length)].set(pieces, mode="drop"),
            positions=at, targets=targets * used, weights=used.astype(jnp.float32),
            left=span.left[at] * used, right=span.right[at] * used, place=place * used,
            boundary_weights=bounded.astype(jnp.float32), span_length=span.length[at] * used)

    return Masker(slots, jax.jit(jax.vmap(mask_row)))


class _Row(NamedTuple):
    """A row as masking sees it; arrays [S]."""
    tokens: jax.Array    # int32
    block: jax.Array     # int32, number of the block from 0, padding counted as one more
    maskable: jax.Array  # bool
    words: jax.Array     # int32, number of the word, rising through the row
    units: jax.Array     # int32, number of the annotated unit, rising through the row; 0 outside units


def _view(features: dict[str, jax.Array], special_ids: tuple[int, ...]) -> _Row:
    tokens, segments, token_types = features["tokens"], features["segments"], features["token_types"]
    maskable = (segments > 0) & ~jnp.isin(tokens, jnp.asarray(special_ids))
    opens_block = jnp.pad((jnp.diff(segments) != 0) | (jnp.diff(token_types) != 0), (1, 0), constant_values=True)
    # A word cut by the start of its block shares a number with the word before, which is in another block.
    words = jnp.cumsum(features["word_starts"])
    annotated = (features["annotations"] > 0) & maskable
    # The first piece of a unit may have been cut off by the block's start.
    opens_unit = annotated & ((features["annotations"] == 1) | opens_block | ~jnp.pad(annotated[:-1], (1, 0)))
    units = jnp.where(annotated, jnp.cumsum(opens_unit), 0)
    return _Row(tokens, jnp.cumsum(opens_block) - 1, maskable, words, units)


class _Bits(NamedTuple):
    """All randomness of a row, uint32."""
    schemes: jax.Array      # [blocks]
    tokens: jax.Array       # [S]
    units: jax.Array        # [S + 1], by number of the unit
    steps: jax.Array        # [M, 2], by number of tokens masked before the step
    replacement: jax.Array  # [2, M]


def _random_bits(key: jax.Array, length: int, blocks: int, slots: int) -> _Bits:
    # One draw cut into parts: each call of the generator is compiled on its own, and takes longer than all the rest.
    shapes = _Bits((blocks,), (length,), (length + 1,), (slots, 2), (2, slots))
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = jnp.split(jax.random.bits(key, (int(ends[-1]),), jnp.uint32), ends[:-1])
    return _Bits(*(part.reshape(shape) for part, shape in zip(parts, shapes)))


def _choose(
        bits: _Bits, row: _Row, goals: jax.Array, scheme_of_block: jax.Array,
        proposals: list[Callable[[MaskingStep], jax.Array]]) -> jax.Array:
    """Chooses the masked positions, bool [S]: one block after another, one proposal of its scheme an iteration.

    `goals` [max_blocks] are the budgets summed up to each block, so the number masked so far tells the block at work,
    and blocks without tokens are passed over. That number grows in every iteration and is below M, so it also
    addresses the iteration's random bits.
    """
    token_priority = (bits.tokens >> 1).astype(jnp.int32)
    unit_priority = (bits.units >> 1).astype(jnp.int32)[row.units]

    def add_span(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        masked, count = carry
        number = jnp.sum(goals <= count)
        block = row.maskable & (row.block == number)
        unmasked = block & ~masked
        remaining = goals[number] - count
        turn = MaskingStep(block, unmasked, row.words, row.units, token_priority, unit_priority, remaining, bits.steps[count])
        proposed = jax.lax.switch(scheme_of_block[number], proposals, turn) & unmasked
        # The budget is cut token by token, so the last span of a block may end inside a word.
        kept = proposed & (jnp.cumsum(proposed) <= remaining)
        return masked | kept, count + jnp.sum(kept)

    masked, _ = jax.lax.while_loop(
        lambda carry: carry[1] < goals[-1], add_span, (jnp.zeros_like(row.maskable), jnp.zeros_like(goals[0])))
    return masked


def _positions(masked: jax.Array, slots: int) -> tuple[jax.Array, jax.Array]:
    """The masked positions in order, int32 [M], 0 in unused slots; and which slots are used, bool [M]."""
    length = masked.shape[0]
    # Sorting brings them to the front at a static size.
    front = jnp.sort(jnp.where(masked, jnp.arange(length, dtype=jnp.int32), length))[:slots]
    used = front < length
    return jnp.where(used, front, 0), used
