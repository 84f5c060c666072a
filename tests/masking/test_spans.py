"""Merged spans and their boundaries on examples worked out by hand from the reference's rules."""
import jax
import numpy as np
import pytest

from spanbert_jax.masking import spans

_merge = jax.jit(spans.merge, static_argnames="endpoints")


def _merged(length: int, chosen: list[tuple[int, int]], endpoints: str) -> list[tuple[int, int, int, int]]:
    """(start, length, left, right) of the bounded spans in a block of `length` between [CLS] and [SEP]; positions are
    counted in the block, as the reference does before it makes room for [CLS]."""
    masked = np.zeros(length + 2, bool)
    for start, end in chosen:
        masked[start + 1:end + 2] = True
    maskable = np.pad(np.ones(length, bool), 1)
    merged = jax.device_get(_merge(masked, np.zeros(length + 2, np.int32), maskable, endpoints))
    return sorted({(int(merged.start[i]) - 1, int(merged.length[i]), int(merged.left[i]) - 1, int(merged.right[i]) - 1)
                   for i in range(length + 2) if masked[i] and merged.bounded[i]})


def test_touching_spans_merge() -> None:
    assert _merged(10, [(5, 5), (3, 4)], "external") == [(3, 3, 2, 6)]


@pytest.mark.parametrize("endpoints,expected", [("external", []), ("internal", [(0, 2, 0, 1), (8, 2, 8, 9)])])
def test_spans_at_the_edges_of_a_block(endpoints: str, expected: list) -> None:
    assert _merged(10, [(0, 1), (8, 9)], endpoints) == expected


def test_spans_one_token_apart_stay_two() -> None:
    assert _merged(10, [(2, 3), (5, 6)], "external") == [(2, 2, 1, 4), (5, 2, 4, 7)]


def test_runs_end_with_their_block() -> None:
    masked = np.array([0, 1, 1, 1, 1, 0], bool)
    merged = _merge(masked, np.array([0, 0, 0, 1, 1, 1]), np.ones(6, bool), "internal")
    assert merged.start[1:5].tolist() == [1, 1, 3, 3] and merged.length[1:5].tolist() == [2, 2, 2, 2]
