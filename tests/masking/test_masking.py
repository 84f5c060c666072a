"""Properties of every masked row, whatever the random bits."""
import functools
import math

import jax
import numpy as np
import pytest

from spanbert_jax.masking import MaskedRows, Masker, MaskingSettings, make_masker
from tests.masking import sampler
from tests.masking.sampler import CLS, MASK, PAD, SEP, UNK

COUNT, LENGTH, MAX_BLOCKS = 40, 118, 4
# Compiling a masker takes longer than any test that uses it, so the tests share these.
WORDS = MaskingSettings(scheme="whole_word", rate=0.5, max_span_positions=4)
UNITS = MaskingSettings(scheme="annotated", endpoints="internal", max_span_positions=4)
MIXTURE = MaskingSettings(scheme="0.4*annotated+0.3*geometric+0.3*token", rate=0.5)
FULL = MaskingSettings(scheme="0.6*annotated+0.4*token", rate=1.0)


@functools.cache
def _masker(settings: MaskingSettings) -> Masker:
    return make_masker(settings, length=LENGTH, max_blocks=MAX_BLOCKS, special=sampler.SPECIAL,
                       unigram=sampler.UNIGRAM)


def _mask(settings: MaskingSettings, rows: dict[str, np.ndarray]) -> MaskedRows:
    return jax.device_get(_masker(settings)(jax.random.split(jax.random.key(11), COUNT), rows))


def _mixed_rows() -> dict[str, np.ndarray]:
    """Packed rows with padding, [UNK] and literal special tokens inside the text, and a block that starts mid-word."""
    rng = np.random.default_rng(12)
    parts = [sampler.random_blocks(rng, COUNT, length, 0.7, unit_fraction=0.1) for length in (30, 1, 50, 20)]
    parts[0].tokens[:, 4:6] = UNK
    parts[2].tokens[:, 10] = MASK
    parts[2].tokens[:, 20] = SEP
    parts[3].word_starts[:, :3] = False
    texts = sampler.packed_rows(parts)
    return {name: np.pad(array, ((0, 0), (0, LENGTH - array.shape[1]))) for name, array in texts.items()}


def _masks(out: MaskedRows) -> np.ndarray:
    masks = np.zeros((COUNT, LENGTH), bool)
    row, slot = np.nonzero(out.weights)
    masks[row, out.positions[row, slot]] = True
    return masks


@pytest.mark.parametrize("settings", [
    MaskingSettings(scheme="geometric+token", rate=0.02), WORDS, UNITS, MIXTURE, FULL],
    ids=lambda settings: f"{settings.scheme}-{settings.rate}")
def test_budget_of_each_block_is_met_exactly_and_nothing_else_changes(settings: MaskingSettings) -> None:
    rows = _mixed_rows()
    out = _mask(settings, rows)
    tokens = rows["tokens"]
    masks = _masks(out)
    special = np.isin(tokens, [PAD, CLS, SEP, MASK])
    assert not np.any(masks & special)
    np.testing.assert_array_equal(out.inputs[~masks], tokens[~masks])
    for segment, size in enumerate((30, 1, 48, 20), 1):
        assert np.all((masks & (rows["segments"] == segment)).sum(1) == math.ceil(size * settings.rate))
    assert np.all(out.weights.sum(1) == masks.sum(1))


def test_a_block_that_starts_inside_a_word_starts_with_a_word() -> None:
    rows = _mixed_rows()
    masks = _masks(_mask(WORDS, rows))
    first = np.argmax(rows["segments"] == 4, axis=1)[0] + 1
    word = masks[:, first:first + 3]  # the rest of a word; only the budget's last token may cut it, from the right
    assert word.any() and np.all(np.diff(word.astype(int), axis=1) <= 0)


def test_slots_hold_positions_in_order_and_their_tokens() -> None:
    rows = _mixed_rows()
    out = _mask(UNITS, rows)
    used = out.weights > 0
    targets = np.take_along_axis(rows["tokens"], out.positions, axis=1)
    np.testing.assert_array_equal(out.targets, np.where(used, targets, 0))
    assert np.all(np.diff(out.positions, axis=1)[used[:, 1:]] > 0)
    for name, array in out._asdict().items():
        if name != "inputs":
            assert not np.any(array[~used]), name


@pytest.mark.parametrize("settings", [WORDS, UNITS], ids=lambda settings: settings.endpoints)
def test_boundaries_places_and_lengths_follow_from_the_mask(settings: MaskingSettings) -> None:
    rows = _mixed_rows()
    out = _mask(settings, rows)
    masks = _masks(out)
    assert np.sum(out.place >= 4) > 10
    free = ~np.isin(rows["tokens"], [PAD, CLS, SEP, MASK])
    for r, (mask, segment) in enumerate(zip(masks, rows["segments"])):
        for m in range(int(out.weights[r].sum())):
            start = end = out.positions[r, m]
            while mask[start - 1] and segment[start - 1] == segment[start]:
                start -= 1
            while mask[end + 1] and segment[end + 1] == segment[end]:
                end += 1
            place = out.positions[r, m] - start
            assert (out.place[r, m], out.span_length[r, m]) == (place, end - start + 1)
            left, right = (start - 1, end + 1) if settings.endpoints == "external" else (start, end)
            bounded = all(free[r, i] and segment[i] == segment[start] for i in (left, right))
            assert out.boundary_weights[r, m] == (bounded and place < 4)
            if bounded:
                assert (out.left[r, m], out.right[r, m]) == (left, right)
            assert 0 <= out.left[r, m] <= out.right[r, m] < LENGTH


def test_a_row_depends_on_its_key_and_itself_only() -> None:
    rows = _mixed_rows()
    masker = _masker(MIXTURE)
    keys = jax.random.split(jax.random.key(13), COUNT)
    together = masker(keys, rows)
    again = masker(keys, rows)
    chosen = [17, 3, 29]
    apart = masker(keys[np.array(chosen)], {name: array[chosen] for name, array in rows.items()})
    other = masker(jax.random.split(jax.random.key(14), COUNT), rows)
    for name in MaskedRows._fields:
        np.testing.assert_array_equal(getattr(together, name), getattr(again, name))
        np.testing.assert_array_equal(np.asarray(getattr(together, name))[chosen], getattr(apart, name))
    assert np.mean(np.any(np.asarray(together.positions) != other.positions, axis=1)) > 0.9


def test_a_block_is_masked_at_any_position_of_the_row() -> None:
    rows = _mixed_rows()
    alone = {name: np.where(rows["segments"] == 3, array, 0) for name, array in rows.items()}
    out = _mask(MIXTURE, alone)
    masks = _masks(out)
    assert np.all((masks & (rows["segments"] == 3)).sum(1) == math.ceil(48 * MIXTURE.rate))
    assert not np.any(masks & (rows["segments"] != 3))


def test_rows_of_padding_stay_empty() -> None:
    rows = {name: np.zeros((COUNT, LENGTH), np.int32) for name in _mixed_rows()}
    out = _mask(UNITS, rows)
    assert not np.any(out.weights) and not np.any(out.boundary_weights) and not np.any(out.inputs)


def test_inputs_of_any_integer_type_are_accepted_and_other_entries_ignored() -> None:
    rows = _mixed_rows()
    stored = {name: array.astype(np.uint8) for name, array in rows.items()}
    stored["tokens"] = rows["tokens"].astype(np.uint16)
    stored["next_sentence"] = np.full(COUNT, -1)
    for a, b in zip(_mask(UNITS, rows), _mask(UNITS, stored)):
        np.testing.assert_array_equal(a, b)


def test_keys_that_would_mask_all_rows_alike_are_refused() -> None:
    rows = _mixed_rows()
    with pytest.raises(ValueError, match="threefry2x32"):
        _masker(UNITS)(jax.random.wrap_key_data(np.zeros((COUNT, 4), np.uint32), impl="rbg"), rows)


def test_every_token_of_a_span_is_replaced_alike() -> None:
    out = _mask(WORDS, _mixed_rows())
    row, slot = np.nonzero(out.weights)
    position, place = out.positions[row, slot], out.place[row, slot]
    is_mask = out.inputs[row, position] == MASK
    of_first = out.inputs[row, position - place] == MASK
    assert np.count_nonzero(place) and 0 < is_mask.mean() < 1
    np.testing.assert_array_equal(is_mask, of_first)
