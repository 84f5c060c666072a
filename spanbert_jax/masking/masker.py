"""The masker: span masking on the accelerator, as a pure jitted function of keys and rows.

Shapes: B rows of S positions, M slots for the masked positions of a row.
"""
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int, Int32, Key, UInt32

from spanbert_jax.masking import budgets, spans
from spanbert_jax.masking.distribution import DiscreteDistribution
from spanbert_jax.masking.replacement import make_replacement
from spanbert_jax.masking.schemes import SCHEMES, MaskingStep
from spanbert_jax.masking.schemes.step import Propose
from spanbert_jax.masking.settings import MaskingSettings, scheme_shares
from spanbert_jax.text import SpecialIds

_FEATURES = ("tokens", "word_starts", "segments", "token_types", "annotations")


class MaskedRows(NamedTuple):
    """Masked rows. Slots are in order of position; unused slots are 0 everywhere.

    Span fields describe merged spans, which are maximal masked runs of a block.
    """
    inputs: Int32[Array, "B S"]               # tokens after masking
    positions: Int32[Array, "B M"]            # masked positions
    targets: Int32[Array, "B M"]              # original tokens there
    weights: Float32[Array, "B M"]            # 1 in used slots
    left: Int32[Array, "B M"]                 # position of the span's left boundary
    right: Int32[Array, "B M"]                # position of its right boundary
    place: Int32[Array, "B M"]                # position in the span, from 0
    boundary_weights: Float32[Array, "B M"]   # 1 for targets of the span boundary objective
    span_length: Int32[Array, "B M"]          # tokens of the span


@dataclasses.dataclass(frozen=True)
class Masker:
    """Masks rows; made by `make_masker`."""
    max_masked: int  # M
    forms_spans: bool  # whether there can be targets of the span boundary objective
    mask_rows: Callable[[Key[Array, " B"], dict[str, Int32[Array, "B S"]]], MaskedRows]  # jitted

    def __call__(self, keys: Key[Array, " B"], rows: Mapping[str, Int[Array | np.ndarray, "B ..."]]) -> MaskedRows:
        """Masks each row with its own key; its masks depend on nothing else.

        Args:
          keys: typed threefry keys.
          rows: tokens, word_starts, segments, token_types and annotations [B, S]; other entries are ignored.

        Raises:
          ValueError: the keys are not threefry keys. (Under `vmap`, rbg keys use the first key for all rows.)
        """
        if jax.random.key_impl(keys) != "threefry2x32":
            raise ValueError(f"masking needs threefry2x32 keys, not {jax.random.key_impl(keys)}: "
                             "make them by jax.random.key(seed, impl='threefry2x32')")
        return self.mask_rows(keys, {name: jnp.asarray(rows[name], jnp.int32) for name in _FEATURES})


def make_masker(settings: MaskingSettings, *, length: int, max_blocks: int, special: SpecialIds,
                unigram: np.ndarray) -> Masker:
    """Makes the masker for rows of `length` positions.

    Args:
      max_blocks: blocks of a row at most, each with its own budget; further blocks would stay unmasked.
      special: ids of the special tokens. All but [UNK] are never masked and never drawn as random tokens.
      unigram: token counts [V] of the corpus, for random tokens.

    Raises:
      UserError: a setting is not allowed, or the unigram is empty.
    """
    settings.validate("config.masking")
    slots = budgets.max_masked(settings.rate, length, max_blocks)
    special_ids = (special.pad, special.cls, special.sep, special.mask)
    replace = make_replacement(settings, special.mask, special_ids, unigram)
    names, shares = zip(*scheme_shares(settings.scheme))
    schemes = [SCHEMES.get(name) for name in names]
    proposals = [scheme.make(settings) for scheme in schemes]
    forms_spans = np.array([scheme.forms_spans for scheme in schemes])
    mixture = DiscreteDistribution(shares)
    table = budgets.budget_table(settings.rate, length)

    def mask_row(key: Key[Array, ""], features: dict[str, Int32[Array, " S"]]) -> MaskedRows:
        row, bits = _parse_row(features, special_ids), _random_bits(key, length, max_blocks, slots)
        scheme_of_block = mixture.draw(bits.schemes)
        sizes = jnp.sum(row.maskable & (row.block == jnp.arange(max_blocks)[:, None]), axis=1)
        goals = jnp.cumsum(jnp.asarray(table)[sizes])
        masked = _choose(bits, row, goals, scheme_of_block, proposals)

        span = spans.merge(masked, row.block, row.maskable, settings.endpoints)
        at, used = _positions(masked, slots)
        targets, place = row.tokens[at], at - span.start[at]
        in_span = jnp.asarray(forms_spans)[scheme_of_block[row.block[at]]]
        slot = jnp.arange(slots, dtype=jnp.int32)
        by_span = in_span & (settings.replacement == "span")
        replaced = replace(bits.replacement, targets, jnp.where(by_span, slot - place, slot))
        bounded = used & in_span & span.bounded[at] & (place < settings.max_span_positions)
        return MaskedRows(
            inputs=row.tokens.at[jnp.where(used, at, length)].set(replaced, mode="drop"),
            positions=at, targets=targets * used, weights=used.astype(jnp.float32),
            left=span.left[at] * used, right=span.right[at] * used, place=place * used,
            boundary_weights=bounded.astype(jnp.float32), span_length=span.length[at] * used)

    return Masker(slots, bool(forms_spans.any()), jax.jit(jax.vmap(mask_row)))


class _Row(NamedTuple):
    """A row, with what masking needs to know of its tokens."""
    tokens: Int32[Array, " S"]
    block: Int32[Array, " S"]   # index of the block; padding is one more block
    maskable: Bool[Array, " S"]
    words: Int32[Array, " S"]   # index of the word, ascending in the row
    units: Int32[Array, " S"]   # index of the annotated unit, ascending in the row; 0 outside units


def _parse_row(features: dict[str, Int32[Array, " S"]], special_ids: tuple[int, ...]) -> _Row:
    tokens, segments, token_types = features["tokens"], features["segments"], features["token_types"]
    maskable = (segments > 0) & ~jnp.isin(tokens, jnp.asarray(special_ids))
    opens_block = jnp.pad((jnp.diff(segments) != 0) | (jnp.diff(token_types) != 0), (1, 0), constant_values=True)
    # A word that the start of its block cuts has the index of the word before, which is in another block.
    words = jnp.cumsum(features["word_starts"])
    annotated = (features["annotations"] > 0) & maskable
    # The start of the block may have cut off the first token of a unit.
    opens_unit = annotated & ((features["annotations"] == 1) | opens_block | ~jnp.pad(annotated[:-1], (1, 0)))
    units = jnp.where(annotated, jnp.cumsum(opens_unit), 0)
    return _Row(tokens, jnp.cumsum(opens_block) - 1, maskable, words, units)


class _Bits(NamedTuple):
    """All random bits of a row."""
    schemes: UInt32[Array, " blocks"]
    tokens: UInt32[Array, " S"]
    units: UInt32[Array, " S+1"]       # by index of the unit
    steps: UInt32[Array, "M 2"]        # by number of tokens that are masked before the step
    replacement: UInt32[Array, "2 M"]


def _random_bits(key: Key[Array, ""], length: int, blocks: int, slots: int) -> _Bits:
    # One call, whose result is split: each call of the generator is compiled by itself, which takes most of the time.
    shapes: tuple[tuple[int, ...], ...] = (blocks,), (length,), (length + 1,), (slots, 2), (2, slots)
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = jnp.split(jax.random.bits(key, (int(ends[-1]),), jnp.uint32), ends[:-1])
    return _Bits(*(part.reshape(shape) for part, shape in zip(parts, shapes)))


def _choose(bits: _Bits, row: _Row, goals: Int32[Array, " blocks"], scheme_of_block: Int32[Array, " blocks"],
            proposals: list[Propose]) -> Bool[Array, " S"]:
    """Chooses the masked positions block by block, with one proposal of the block's scheme per iteration.

    `goals` are cumulative budgets of the blocks, so the number of masked tokens determines the current block, and
    blocks without tokens are skipped. That number grows in every iteration and stays below M, so it also selects the
    random bits of the iteration.
    """
    token_priority = (bits.tokens >> 1).astype(jnp.int32)
    unit_priority = (bits.units >> 1).astype(jnp.int32)[row.units]

    def add_span(carry: tuple[Bool[Array, " S"], Int32[Array, ""]]) -> tuple[Bool[Array, " S"], Int32[Array, ""]]:
        masked, count = carry
        current = jnp.sum(goals <= count)
        block = row.maskable & (row.block == current)
        unmasked = block & ~masked
        remaining = goals[current] - count
        step = MaskingStep(block, unmasked, row.words, row.units, token_priority, unit_priority, remaining,
                           bits.steps[count])
        proposed = jax.lax.switch(scheme_of_block[current], proposals, step) & unmasked
        # The budget limits tokens, so the last span of a block may end inside a word.
        kept = proposed & (jnp.cumsum(proposed) <= remaining)
        return masked | kept, count + jnp.sum(kept)

    masked, _ = jax.lax.while_loop(
        lambda carry: carry[1] < goals[-1], add_span, (jnp.zeros_like(row.maskable), jnp.zeros_like(goals[0])))
    return masked


def _positions(masked: Bool[Array, " S"], slots: int) -> tuple[Int32[Array, " M"], Bool[Array, " M"]]:
    """The masked positions in order, 0 in unused slots; and which slots are used."""
    length = masked.shape[0]
    # Sorting moves them to the front with static shapes.
    front = jnp.sort(jnp.where(masked, jnp.arange(length, dtype=jnp.int32), length))[:slots]
    used = front < length
    return jnp.where(used, front, 0), used
