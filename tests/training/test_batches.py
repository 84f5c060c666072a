"""Batches on the devices: order, padding and layout."""
import numpy as np
import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.pretraining.config import default_config
from spanbert_jax.training.batches import device_batches
from spanbert_jax.training.mesh import make_mesh


class Source:
    """Rows [row number, row number + 1]; -1 is padding of zeros; row 99 is damaged."""

    def __len__(self):
        return 100

    def rows(self, indices):
        if 99 in indices:
            raise UserError("row 99 is damaged")
        return {"tokens": np.where(indices[:, None] < 0, 0, indices[:, None] + [0, 1])}


def batches_of(indices, numbers, **axes):
    config = default_config().mesh
    config.update(axes)
    return device_batches(Source(), indices, numbers, make_mesh(config), config.rules)


@pytest.mark.parametrize("axes, ways", [({}, 8), (dict(data=2, fsdp=2, tensor=2), 4)])
def test_batches_come_in_order_and_are_split_over_the_data_axes(axes, ways):
    order = np.random.default_rng(0).integers(0, 99, (30, 8))
    order[:, -1] = -1
    batches = list(batches_of(order.__getitem__, range(5, 30), **axes))
    assert [batch.number for batch in batches] == list(range(5, 30))
    for batch in batches:
        np.testing.assert_array_equal(batch.indices, order[batch.number])
        tokens = batch.arrays["tokens"]
        np.testing.assert_array_equal(tokens, Source().rows(order[batch.number])["tokens"])
        assert tokens.addressable_shards[0].data.shape == (8 // ways, 2)


def test_no_batches_are_no_error():
    assert list(batches_of(lambda number: pytest.fail(), range(3, 3))) == []


def test_a_damaged_row_raises_at_its_batch():
    batches = batches_of(lambda number: np.full(8, 97 + number), range(4))
    assert [next(batches).number, next(batches).number] == [0, 1]
    with pytest.raises(UserError, match="row 99"):
        next(batches)
