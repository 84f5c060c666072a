"""The pretraining objective: losses, weights and sums over targets."""
import jax
import numpy as np
import pytest
import scipy.special

from spanbert_jax.masking import MaskedRows
from spanbert_jax.model import PretrainingLogits
from spanbert_jax.model.losses import LossSums, cross_entropy
from spanbert_jax.pretraining.config import default_config
from spanbert_jax.pretraining.objective import mask_batch, objective_sums, target_weights, total_loss
from spanbert_jax.training.mesh import make_mesh
from spanbert_jax.training.step import mean_metrics

B, M, V = 4, 6, 11


@pytest.fixture
def batch():
    """Random logits, masked rows and next-sentence labels; the last row has no targets."""
    random = np.random.default_rng(0)
    shapes = (B, M, V), (B, M, V), (B, 2)
    logits = PretrainingLogits(*(random.normal(size=shape).astype(np.float32) for shape in shapes))
    weights = (random.random((B, M)) < 0.7).astype(np.float32)
    weights[-1] = 0
    whole = {name: np.zeros((B, M), np.int32) for name in ("left", "right", "place", "span_length", "positions")}
    rows = MaskedRows(inputs=np.zeros((B, 8), np.int32), targets=random.integers(0, V, (B, M)), weights=weights,
                      boundary_weights=weights * (random.random((B, M)) < 0.5), **whole)
    return logits, rows, np.array([0, 1, 1, -1], np.int32)


def test_cross_entropy_equals_log_softmax_and_counts_the_likeliest_target_as_correct(batch):
    logits, rows, _ = batch
    targets, likeliest = rows.targets.copy(), logits.masked.argmax(-1)
    targets[:, ::2] = likeliest[:, ::2]
    loss, correct = cross_entropy(logits.masked, targets)
    expected = -np.take_along_axis(scipy.special.log_softmax(logits.masked, -1), targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_array_equal(correct, likeliest == targets)
    assert 0.5 <= correct.mean() < 1
    np.testing.assert_array_equal(cross_entropy(np.ones((1, 3), np.float32), np.array([1]))[1], [1])  # a tie


def test_sums_count_only_weighted_targets(batch):
    logits, rows, labels = batch
    sums = objective_sums(logits, rows, labels)
    for name, values, weights in (("masked", logits.masked, rows.weights),
                                  ("boundary", logits.boundary, rows.boundary_weights)):
        loss = -np.take_along_axis(scipy.special.log_softmax(values, -1), rows.targets[..., None], -1)[..., 0]
        np.testing.assert_allclose(sums[name].loss, (loss * weights).sum(), rtol=1e-5)
        assert sums[name].count == weights.sum()
    pairs = scipy.special.log_softmax(logits.next_sentence, -1)
    np.testing.assert_allclose(sums["next_sentence"].loss, -(pairs[0, 0] + pairs[1, 1] + pairs[2, 1]), rtol=1e-5)
    assert sums["next_sentence"].count == 3


def test_a_missing_head_has_no_sums(batch):
    logits, rows, labels = batch
    assert objective_sums(PretrainingLogits(logits.masked, None, None), rows, labels).keys() == {"masked"}


@pytest.mark.parametrize("reference,extra", [(False, 0), (True, 1)])
def test_the_losses_of_parts_add_up_to_the_loss_of_the_batch(batch, reference, extra):
    logits, rows, labels = batch
    counts = {name: weights.sum() for name, weights in target_weights(rows, labels).items()}

    def part(tree, rows):
        return jax.tree.map(lambda x: x[rows], tree)

    parts = [total_loss(objective_sums(part(logits, s), part(rows, s), labels[s]), counts, 0.7, reference)
             for s in (slice(0, 1), slice(1, 4))]
    sums = objective_sums(logits, rows, labels)
    expected = (sums["masked"].loss / counts["masked"] + 0.7 * sums["boundary"].loss / (counts["boundary"] + extra)
                + sums["next_sentence"].loss / 3)
    np.testing.assert_allclose(sum(parts), expected, rtol=1e-5)


def test_no_targets_give_a_loss_of_zero():
    nothing = LossSums(np.float32(0), np.float32(0), np.float32(0))
    assert total_loss({"masked": nothing, "boundary": nothing}, {"masked": 0.0, "boundary": 0.0}, 1.0, False) == 0
    assert mean_metrics({"masked": nothing}) == {"masked_loss": 0, "masked_accuracy": 0}


@pytest.mark.parametrize("devices", [1, 4])
def test_each_row_is_masked_by_its_own_key_on_any_mesh(devices):
    settings = default_config().mesh
    mesh, rows = make_mesh(settings, jax.devices()[:devices]), {"tokens": np.zeros((8, 3), np.int32)}

    def keys(first: int) -> np.ndarray:
        masked = mask_batch(lambda keys, rows: jax.random.key_data(keys), jax.random.key(0), rows, mesh, settings.rules,
                            first)
        return np.asarray(masked)

    expected = np.array([jax.random.key_data(jax.random.fold_in(jax.random.key(0), row)) for row in range(10)])
    np.testing.assert_array_equal(keys(0), expected[:8])
    np.testing.assert_array_equal(keys(2), expected[2:])
