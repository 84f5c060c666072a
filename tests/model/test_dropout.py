"""Dropout: definition of masks, equal masks on every mesh, and statistical independence of the elements."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from scipy import stats

from spanbert_jax.model.dropout import drop, drop_matrices, keep_mask, kept_scale, seed_from, split_seed

SEED = np.array([0x9E3779B9, 123], np.uint32)
# Of all tests here together: false alarms are so rare.
RARE = 1e-6


def seeds_of(*shape: int) -> jax.Array:
    return split_seed(jnp.asarray(SEED), shape)


def hashed(position: np.ndarray, first: int, second: int) -> np.ndarray:
    """The word of a position, in integers without end."""
    x = (position.astype(object) + first) % 2 ** 32
    x = (x ^ x >> 16) * 0x21F0AAAD % 2 ** 32
    x = (x ^ x >> 15 ^ second) * 0x735A2D97 % 2 ** 32
    return x ^ x >> 15


@pytest.mark.parametrize("rows,columns", [(5, 8), (3, 7), (4, 2), (128, 128)])
@pytest.mark.parametrize("rate,threshold", [(0.1, 26), (0.5, 128), (0.001, 0), (0.999, 255)])
def test_masks_match_their_definition(rows, columns, rate, threshold):
    seeds = np.array([[1, 2], [2 ** 32 - 1, 2 ** 31]], np.uint32)
    t, j = np.indices((rows, columns))
    quarter = -(-columns // 4)
    for mask, (first, second) in zip(keep_mask(jnp.asarray(seeds), rows, columns, rate), seeds.tolist(), strict=True):
        words = hashed(t * quarter + j % quarter, first, second)
        byte = words >> 24 - 8 * (j // quarter) & 0xFF
        np.testing.assert_array_equal(mask, (byte ^ 0x80) >= threshold)


def test_split_seeds_are_distinct():
    split = np.asarray(jax.vmap(lambda seed: split_seed(seed, (64, 16)))(seeds_of(24)), np.uint64).reshape(-1, 2)
    assert len(np.unique(split[:, 0] << np.uint64(32) | split[:, 1])) == 24 * 64 * 16
    # And their bits are like those of any other random words, and so are those in which the two words differ.
    words = np.column_stack([split, split[:, 0] ^ split[:, 1]]).astype(np.uint32)
    ones = np.unpackbits(words.view(np.uint8), axis=1).sum(axis=0)
    assert np.abs(ones - len(split) / 2).max() < 5 * np.sqrt(len(split) / 4)


def test_keys_give_distinct_seeds():
    seeds = np.asarray(jax.vmap(seed_from)(jax.random.split(jax.random.key(0), 1000)))
    assert seeds.shape == (1000, 2) and seeds.dtype == np.uint32
    assert len(np.unique(seeds[:, 0])) == len(np.unique(seeds[:, 1])) == 1000


@pytest.mark.parametrize("rate,share", [(0.1, 26 / 256), (0.5, 0.5), (0.9, 230 / 256)])
def test_the_rate_holds_overall_and_in_each_part(rate, share):
    masks = ~np.asarray(keep_mask(seeds_of(16, 12), 128, 128, rate))
    for axes in itertools.chain.from_iterable(itertools.combinations(range(4), count) for count in range(4)):
        dropped, count = masks.sum(axis=axes), np.prod([masks.shape[axis] for axis in axes])
        if count >= 100:
            tail = stats.binom.cdf(dropped, count, share), stats.binom.sf(dropped - 1, count, share)
            assert np.minimum(*tail).min() * dropped.size > RARE, axes
            # Neither more even nor less even than chance makes it.
            if dropped.size > 1:
                squares = np.sum((dropped - count * share) ** 2) / (count * share * (1 - share))
                assert RARE < stats.chi2.sf(squares, dropped.size) < 1 - RARE, axes


def test_dropped_elements_are_independent():
    masks = np.asarray(keep_mask(seeds_of(16, 12), 128, 128, 0.1))
    deviation = (masks - masks.mean()) / masks.std()
    neighbours = {
        "columns": (deviation[..., :-1], deviation[..., 1:]), "rows": (deviation[..., :-1, :], deviation[..., 1:, :]),
        "diagonals": (deviation[..., :-1, :-1], deviation[..., 1:, 1:]), "halves": np.split(deviation, 2, axis=3),
        "transposed": (deviation * np.tri(128, k=-1), deviation.swapaxes(2, 3)),
        "matrices": (deviation[:, :-1], deviation[:, 1:]), "sequences": (deviation[:-1], deviation[1:])}
    for lag in (32, 64, 96):  # the other parts of a word
        neighbours[f"parts {lag}"] = deviation[..., :-lag], deviation[..., lag:]
    for name, (some, others) in neighbours.items():
        products = (some * others)[some * others != 0]
        assert abs(products.sum()) < 5 * np.sqrt(products.size), name


@pytest.mark.parametrize("what", ["word", "square", "seeds"])
def test_the_sixteen_outcomes_of_four_elements_have_the_expected_frequencies(what):
    masks = np.asarray(keep_mask(seeds_of(16, 12), 128, 128, 0.3))
    four = {"word": np.split(masks, 4, axis=3), "seeds": np.split(masks, 4, axis=1),
            "square": [masks[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]}[what]
    outcomes = np.bincount(sum(part.ravel() << place for place, part in enumerate(four)), minlength=16)
    kept = 1 - 77 / 256
    expected = [kept ** ones * (1 - kept) ** (4 - ones) for ones in map(int.bit_count, range(16))]
    assert stats.chisquare(outcomes, outcomes.sum() * np.array(expected)).pvalue > RARE


@pytest.mark.parametrize("differing", [[1, 0], [0, 1], [1, 1], [0, 2 ** 31]])
def test_similar_seeds_give_independent_masks(differing):
    some, others = (jnp.asarray(SEED + np.array(change, np.uint32)) for change in ([0, 0], differing))
    masks = (np.asarray(drop(jnp.ones((4, 256, 256)), seed, 0.5)).reshape(4, -1) - 1 for seed in (some, others))
    for one, other in itertools.product(*masks):
        for shift in range(-2, 3):  # nor where one is moved along the other
            assert abs(np.mean(one * np.roll(other, shift))) < 5 / np.sqrt(one.size)


@pytest.mark.parametrize("shape", [(16, 24, 40), (16, 8, 24, 40)])
@pytest.mark.parametrize("split", ["rows", "last", "both"])
def test_every_mesh_drops_the_same_elements(shape, split):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    alone = drop(x, jnp.asarray(SEED), 0.1)
    mesh = jax.make_mesh((4, 2), ("data", "tensor"))
    axes = "data", "tensor"
    rows, last = {"rows": (axes, None), "last": (None, axes), "both": axes}[split]
    layout = NamedSharding(mesh, PartitionSpec(rows, *[None] * (len(shape) - 2), last))
    spread = jax.jit(lambda x, seed: drop(x, seed, 0.1), out_shardings=layout)(jax.device_put(x, layout), SEED)
    assert len({str(shard.index) for shard in spread.addressable_shards}) == 8
    np.testing.assert_array_equal(spread, alone)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kept_elements_and_their_gradients_are_scaled(dtype):
    x = jnp.asarray(np.random.default_rng(1).normal(size=(6, 32, 48)), dtype)
    above = jnp.asarray(np.random.default_rng(2).normal(size=x.shape), dtype)
    dropped, pull = jax.vjp(lambda x: drop(x, jnp.asarray(SEED), 0.1), x)
    gradient, = pull(above)
    assert dropped.dtype == gradient.dtype == x.dtype
    kept = np.asarray(dropped) != 0
    assert 0.85 < kept.mean() < 0.95
    for got, given in ((dropped, x), (gradient, above)):
        expected = np.where(kept, np.asarray(given, np.float64) * 256 / (256 - 26), 0)
        np.testing.assert_allclose(np.asarray(got, np.float64), expected, rtol=1e-6 if dtype == "float32" else 1e-2)


def test_each_matrix_has_its_own_seed():
    x, seeds = jnp.ones((2, 3, 16, 16)), seeds_of(2, 3)
    np.testing.assert_array_equal(drop(x, jnp.asarray(SEED), 0.5), drop_matrices(x, seeds, 0.5))
    together = drop_matrices(x, seeds, 0.5)
    for row, head in np.ndindex(2, 3):
        np.testing.assert_array_equal(together[row, head], drop_matrices(x[row, head], seeds[row, head], 0.5))
    np.testing.assert_array_equal(together, keep_mask(seeds, 16, 16, 0.5) * kept_scale(0.5))


# Rates are applied in 256ths, and the last is none.
@pytest.mark.parametrize("seed,rate", [(SEED, 0.0), (None, 0.5), (SEED, 0.0019)])
def test_without_a_rate_or_a_seed_nothing_is_dropped(seed, rate):
    x = jnp.ones((4, 8, 16))
    np.testing.assert_array_equal(drop(x, None if seed is None else jnp.asarray(seed), rate), x)


def test_no_mask_is_kept_for_the_backward_pass():
    x = jnp.ones((4, 32, 64))
    _, pull = jax.vjp(lambda x: drop(x, jnp.asarray(SEED), 0.1), x)
    assert max(leaf.size for leaf in jax.tree.leaves(pull)) <= 4 * 2
